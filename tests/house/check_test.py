#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""check.py finds what it is for: each test breaks one rule in a small tree made for it."""

import os
import shutil
import sys
import tempfile
import unittest

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, HERE)
sys.dont_write_bytecode = True
import check  # noqa: E402

C = "// SPDX-License-Identifier: Apache-2.0\n"
PY = "# SPDX-License-Identifier: Apache-2.0\n"


class HouseTest(unittest.TestCase):
    def setUp(self):
        self.root = tempfile.mkdtemp()
        self.addCleanup(shutil.rmtree, self.root)
        with open(os.path.join(HERE, "include-matrix.txt"), encoding="utf-8") as f:
            self.write("tests/house/include-matrix.txt", f.read())
        self.write("ARCHITECTURE.md", "`base/` `http/` `server/` `cpu/` `cli/` `tests/`\n")
        self.write("base/buf.h", C + "#include <stddef.h>\n")
        self.write("cpu/cpu.h", C + '#include "base/buf.h"\n')
        self.write("cli/main.c", C + '#include "cpu/cpu.h"\n')

    def write(self, path, text):
        path = os.path.join(self.root, path)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "w", encoding="utf-8") as f:
            f.write(text)

    def expect(self, *lines):
        self.assertEqual(check.check(self.root)[0], list(lines))

    def expect_one(self, beginning):
        problems = check.check(self.root)[0]
        self.assertEqual(len(problems), 1, problems)
        self.assertTrue(problems[0].startswith(beginning), problems)

    def test_a_clean_tree(self):
        self.expect()

    def test_a_folder_that_is_not_allowed(self):
        self.write("server/routes.c", C + '\n#include "base/buf.h"\n  # include  "cpu/cpu.h"\n')
        self.expect_one("server/routes.c:4: include: server/ may not include cpu/; allowed: base")

    def test_below_includes_above(self):
        self.write("base/log.c", C + '#include "cpu/cpu.h" // why not\n')
        self.expect_one("base/log.c:2: include: base/ may not include cpu/; allowed: nothing")

    def test_a_library_that_is_not_allowed(self):
        self.write("base/loop.c", C + "#include <event2/event.h>\n")
        self.expect_one("base/loop.c:2: include: base/ may not use <event2/event.h>")

    def test_no_folder_no_file_no_header(self):
        self.write("base/a.c", C + '#include "buf.h"\n')
        self.write("base/b.c", C + '#include "base/missing.h"\n')
        self.write("base/c.c", C + '#include "base/a.c"\n')
        found = check.check(self.root)[0]
        self.assertEqual([p.split(": ")[0] for p in found], ["base/a.c:2", "base/b.c:2", "base/c.c:2"])

    def test_a_folder_without_a_line(self):
        self.write("extra/a.c", C + '#include "base/buf.h"\n')
        found = check.check(self.root)[0]
        self.assertEqual(len(found), 2, found)
        self.assertIn("extra/ has no line", found[0])
        self.assertIn("ARCHITECTURE.md does not mention `extra/`", found[1])

    def test_tests_may_include_anything(self):
        self.write("tests/cpu/a.c", C + '#include "cpu/cpu.h"\n#include <event2/event.h>\n')
        self.expect()

    def test_tests_may_include_what_is_beside_them(self):
        self.write("tests/cpu/a.c", C + '#include "support.h"\n')
        self.expect_one('tests/cpu/a.c:2: include: "support.h" names no folder')
        self.write("tests/cpu/support.h", C)
        self.expect()

    def test_licence_lines(self):
        self.write("base/a.c", "\n" + C)
        self.write("cli/b.py", "print()\n")
        self.write("cli/run", "#!/bin/sh\necho\n")
        self.write("cli/fine.py", "#!/usr/bin/env python3\n" + PY)
        found = check.check(self.root)[0]
        places = [p.split(": spdx")[0] for p in found]
        self.assertEqual(places, ["base/a.c:1", "cli/b.py:1", "cli/run:2"])

    def test_long_files_warn(self):
        self.write("base/long.c", C + "int x;\n" * check.MAX_LINES)
        problems, warnings = check.check(self.root)
        self.assertEqual((problems, len(warnings)), ([], 1))

    def test_the_matrix_itself(self):
        self.write("tests/house/include-matrix.txt", "base: http\nhttp: base\ncpu: base\ncli: cpu base\n"
                   "http: base\nserver: base cpu\n")
        found = check.check(self.root)[0]
        self.assertEqual(len(found), 3, found)
        self.assertIn("base/ lists http/, which does not stand above it", found[0])
        self.assertIn("http/ has two lines", found[1])
        self.assertIn("server/ lists cpu/: only cli/ names a device", found[2])

    def test_build_folders_are_not_read(self):
        self.write("build/x/a.c", '#include "cpu/cpu.h"\n')
        self.write("build-y/a.c", '#include "cpu/cpu.h"\n')
        self.expect()


if __name__ == "__main__":
    unittest.main()
