# SPDX-License-Identifier: Apache-2.0
"""A server that speaks the part of the Hugging Face hub's API that downloads need, and can misbehave.

Two servers on two ports: the hub, and the host that the hub redirects large files to.
"""

import hashlib
import json
import re
import ssl
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote

COMMIT = "0123456789abcdef0123456789abcdef01234567"


def blob_id(data):
    """git's name of a file's bytes."""
    return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()


class File:
    def __init__(self, data, lfs=False, sent=None, hash=None, size=None):
        self.data, self.lfs = data, lfs
        self.sent = data if sent is None else sent  # what goes over the wire
        self.blob_id = blob_id(data)
        self.hash = hash or (hashlib.sha256(data).hexdigest() if lfs else self.blob_id)
        self.size = len(data) if size is None else size


class Hub:
    def __init__(self, files, repo="acme/tiny", revisions=("main",), tls=None):
        self.files, self.repo, self.revisions = files, repo, revisions
        self.log = []  # (server, path, headers)
        self.lock = threading.Lock()
        self.token = None      # needed where set
        self.cuts = []         # for each of the next answers with a file: bytes until the connection is cut
        self.answers = []      # for each of the next requests: (status, headers) instead of an answer
        self.cdn_answers = []  # the same, of the other host
        self.ranges = True
        self.shift = 0         # how far a range is beside the one that was asked for
        self.redirect = None   # instead of the other host: where large files are
        self.extra = []        # further siblings
        self.listing = None    # instead of the listing: bytes
        self.delay = 0         # seconds before each answer of the other host
        self.busy = self.most = 0
        self.tls = tls         # certificate and key; the hub and the other host speak https then
        self.servers = [self.start("hub"), self.start("cdn")]
        scheme = "https://localhost" if tls else "http://127.0.0.1"
        self.url, self.cdn = ("%s:%d" % (scheme, s.server_port) for s in self.servers)

    def start(self, role):
        hub = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self):
                hub.answer(self, role)

            def do_HEAD(self):
                hub.answer(self, role)

            def log_message(self, *args):
                pass

        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        server.daemon_threads = True
        server.handle_error = lambda *args: None  # clients that break off are what this is for
        if self.tls:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(*self.tls)
            # The handshake belongs to the connection's thread, not to the one that accepts.
            server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        return server

    def close(self):
        for s in self.servers:
            s.shutdown()
            s.server_close()

    def __enter__(self):
        return self

    def __exit__(self, *args):
        self.close()

    def requests(self, role):
        return [(path, headers) for r, path, headers in self.log if r == role]

    def tree(self):
        """What the other listing says, which huggingface_hub asks for."""
        return [{"type": "file", "path": path, "size": f.size, "oid": f.blob_id,
                 **({"lfs": {"oid": f.hash, "size": f.size, "pointerSize": 134}} if f.lfs else {})}
                for path, f in self.files.items()]

    def listing_bytes(self):
        if self.listing is not None:
            return self.listing
        siblings = []
        for path, f in self.files.items():
            entry = {"rfilename": path, "size": f.size, "blobId": f.blob_id}
            if f.lfs:
                entry["lfs"] = {"sha256": f.hash, "size": f.size, "pointerSize": 134}
            else:
                entry["blobId"] = f.hash
            siblings.append(entry)
        return json.dumps({"id": self.repo, "sha": COMMIT, "siblings": siblings + self.extra}).encode()

    def answer(self, h, role):
        with self.lock:
            self.log.append((role, h.path, dict(h.headers)))
            answers = self.answers if role == "hub" else self.cdn_answers
            other = answers.pop(0) if answers else None
        if other:
            return reply(h, other[0], other[1], b"no")
        if role == "cdn":
            with self.lock:
                self.busy += 1
                self.most = max(self.most, self.busy)
            time.sleep(self.delay)
            digest = h.path.split("/")[-1].split("?")[0]
            self.send_file(h, next(f for f in self.files.values() if f.hash == digest))
            with self.lock:
                self.busy -= 1
            return None
        if self.token and h.headers.get("Authorization") != "Bearer " + self.token:
            return reply(h, 401, {"X-Error-Code": "RepoNotFound"}, b"{}")
        if h.path.startswith("/api/models/%s/tree/%s?" % (self.repo, COMMIT)):
            return reply(h, 200, {"Content-Type": "application/json"}, json.dumps(self.tree()).encode())
        api = re.fullmatch(r"/api/models/([^/]+/[^/]+)/revision/([^/?]+)(?:\?blobs=true)?", h.path)
        if api:
            if api[1] != self.repo:
                return reply(h, 401, {"X-Error-Code": "RepoNotFound"}, b"{}")
            if unquote(api[2]) not in (*self.revisions, COMMIT):
                return reply(h, 404, {"X-Error-Code": "RevisionNotFound"}, b"{}")
            return reply(h, 200, {"Content-Type": "application/json"}, self.listing_bytes())
        resolve = re.fullmatch("/([^/]+/[^/]+)/resolve/%s/(.+)" % COMMIT, h.path)
        f = self.files.get(unquote(resolve[2])) if resolve and resolve[1] == self.repo else None
        if not f:
            return reply(h, 404, {"X-Error-Code": "EntryNotFound"}, b"{}")
        if f.lfs:
            where = self.redirect or "%s/blobs/%s?signed=1" % (self.cdn, f.hash)
            return reply(h, 302, {"Location": where, "X-Linked-Etag": '"%s"' % f.hash,
                                  "X-Linked-Size": str(f.size), "X-Repo-Commit": COMMIT}, b"see there")
        return self.send_file(h, f)

    def send_file(self, h, f):
        data, status, headers = f.sent, 200, {"ETag": '"%s"' % f.hash, "X-Repo-Commit": COMMIT}
        asked = re.fullmatch(r"bytes=(\d+)-(\d+)", h.headers.get("Range", ""))
        if asked and self.ranges:
            first, last = int(asked[1]) + self.shift, min(int(asked[2]), len(data) - 1)
            headers["Content-Range"] = "bytes %d-%d/%d" % (first, last, len(data))
            data, status = data[first:last + 1], 206
        with self.lock:
            cut = self.cuts.pop(0) if self.cuts else None
        reply(h, status, headers, data, cut)


def reply(h, status, headers, body, cut=None):
    try:
        h.send_response(status)
        for name, value in headers.items():
            h.send_header(name, value)
        h.send_header("Content-Length", str(len(body)))
        h.end_headers()
        if h.command == "HEAD":
            return
        h.wfile.write(body if cut is None else body[:cut])
        h.wfile.flush()
    except OSError:
        cut = 0
    if cut is not None:
        h.close_connection = True
