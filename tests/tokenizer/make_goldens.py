#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Makes tests/tokenizer/goldens/: tiny tokenizers, texts, and the ids that Hugging Face gives.

Needs: pip install tokenizers sentencepiece protobuf gguf. texts.txt holds the texts, a JSON string on each line; every NAME.json
is a tokenizer.json, and NAME.ids has a line of ids (with add_special_tokens) for each text.
spm.gguf is a vocabulary that SentencePiece trained; its ids are SentencePiece's, with BOS, no special
token parsed.
"""
import io
import json
import pathlib
import random

import tokenizers
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers
from tokenizers import pre_tokenizers, processors, trainers

OUT = pathlib.Path(__file__).parent / "goldens"

GPT2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
LLAMA3 = (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}|"
          r" ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+")
QWEN2 = LLAMA3.replace(r"\p{N}{1,3}", r"\p{N}")
GPT4O = (r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+"
         r"(?i:'s|'t|'re|'ve|'m|'ll|'d)?|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+"
         r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?|\p{N}{1,3}|"
         r" ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+")

# Text of our own to train on.
CORPUS = [
    "The kettle was on, and the old clock in the hall had just struck seven.",
    "She'd said they're coming, but I don't think they've left; we'll see, won't we?",
    "Prices rose 12.5% in 2024, from 1,299 to 1,461 - a record since 1987.",
    "def add(a, b):\n    return a + b\n\n\nclass Point:\n\tdef __init__(self, x=0):\n\t\tself.x = x\n",
    "Le garçon préfère le café crème à Noël; où est l'œuvre de Zoë?",
    "Größe, Straße, Übung, Ärger und Öl sind Wörter mit Umlauten.",
    "Быстрая лиса прыгает через ленивую собаку, а потом спит.",
    "Η γρήγορη αλεπού πηδάει πάνω από τον τεμπέλη σκύλο.",
    "速い茶色の狐がのろまな犬を飛び越える。東京は今日も雨です。",
    "敏捷的棕色狐狸跳过了懒狗，然后在树下睡着了。",
    "빠른 갈색 여우가 게으른 개를 뛰어넘는다.",
    "السلام عليكم ورحمة الله، كيف حالك اليوم؟",
    "שלום עולם, מה שלומך היום?",
    "नमस्ते दुनिया, आज मौसम अच्छा है।",
    "สวัสดีชาวโลก วันนี้อากาศดีมาก",
    "👩‍👩‍👧‍👦 family, 👍🏽 thumbs, 🇫🇷 flag, ❤️ heart, 🏴‍☠️ pirate",
    "x = [1, 2, 3]; y = {'a': 1, \"b\": 2}  // a comment   with   spaces",
] * 4

NASTY = [
    "", " ", "  ", "   ", "\t", "\n", "\n\n", "\r\n", "\r\n\r\n", "\r\r\n\n", " \n ", "a\r\nb\r\n\r\nc",
    "Hello", " Hello", "  Hello", "Hello ", "Hello  ", "Hello world", "Hello\nworld", "Hello \n world",
    "\n Hello", " \t\n Hello\t", "a  b   c    d", "trailing spaces   ", "   leading", "tab\tand\tspace \t x",
    "I'm you're he'S SHE'LL WE'VE 'tis '' ''' 'd 'D '\u017f '\u017ft o'clock rock'n'roll",
    "'s't're've'm'll'd", "don't can't I'd've", "\u2019s it\u2019s", "x's\n's 's",
    "1 12 123 1234 12345 123456 1234567", "3.14159 1e-5 0x1F 1,000,000", "a1b22c333d4444",
    "\u0661\u0662\u0663\u0664 \u0967\u0968\u0969\u096a \uff11\uff12\uff13 \u00b2\u00b3\u00b9 \u00bd\u00be \u2167 \u2460 \U0001d7d8\U0001d7d9",
    "e\u0301 e\u0301\u0323 \u1e69 s\u0323\u0307 s\u0307\u0323 \u212b \u00c5 A\u030a \u1100\u1161\u11a8 \uac01 \u0958 \ufb01",
    "q\u0307\u0323\u0307\u0323\u0301\u0316 o\u0308\u0304 \u0344 \u0340 \u2126 \u212a \u1fef \u037e \u2000\u2001",
    "Z\u0351\u036b\u0343\u036a\u0302\u036b\u033d\u034f\u0334\u0319\u0324\u031e\u0349\u035a\u032f\u031e\u0320\u034dA\u036b\u0357\u0334\u0362",
    "\u00a0 \u00a0nbsp\u00a0here\u00a0\u00a0 \u2003em\u2009thin\u200bzero\u3000wide \u1680 \u180e x \u0085 y \u2028 z \u2029",
    "👩‍👩‍👧‍👦👍🏽🇫🇷❤️🏴‍☠️", "🙂🙂🙂 🦙.cpp 😶‍🌫️!", "\u200d\u200d \ufe0f \u20e3 1\ufe0f\u20e3",
    "我想在apple工作1314151天～", "東京タワーは333メートルです。", "ｶﾀｶﾅ ＦＵＬＬ　ＷＩＤＴＨ", "한국어 문장입니다.",
    "السَّلَامُ عَلَيْكُمْ ١٢٣", "שָׁלוֹם 123 עוֹלָם", "\u202eabc\u202c \u2066x\u2069", "नमस्ते क्षत्रिय", "กำลัง ที่สุด",
    "កាន់តែពិសេសអាចខលចេញ", "Cửa Việt Tiếng Việt", "İstanbul ıI ß SS ﬀ ǆ Ǆ ǅ", "ĲĿŉǰ",
    "!!!!!!???...---===", "a/b\\c|d<e>f&g;h:i", "{}[]()<>`~@#$%^&*_+", "...\n\n!!!\r\n\r\n", "// comment\n/// doc\n",
    " = + - * / ", "¡Hola! ¿Qué tal? «oui» „ja“ …", "€100 £5 ¥7 ₿", "\u0000\u0001\u001f\u007f\u0080\u009f", "a\u0000b",
    "\ufeffbom", "\ufffd\ufffe\uffff", "\U0010ffff\U000e0001\U000f0000", "\ud7ff\ue000",
    "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
    " " * 70, "ab" * 50, "\n" * 30, "1" * 40, "é" * 30, "한" * 30, "🙂" * 20, " a" * 30,
    "<s>x</s> <unk> <|end|>", "<|im_start|>user\nhi<|im_end|>\n", "a<|tool|>b <|tool|> c<|wide|>  d", "x  <|wide|>\n y<|wide|>",
    "<tag><tag> <tag>x</tag>", "word<one>word <one> <one>", "<|im_start|><|im_end|>", "<|im_", "<|im_start", "▁ ▁▁ a▁b", "<0x41> <0x0A>",
]

POOL = ("abcdefgh ABCDXYZ  \t\n\r\n0123456789'''..,,!?-_()[]{}<>/\\|@#\"sStTmMdDrReEvVlL"
        "éèüößñçÆŒſıİ\u0301\u0308\u0323\u030a\u00a0\u00ad\u2003\u3000\u200b\u200d\ufe0fжДαΩשםأبतिक्ष日本語中文한국กำ"
        "٣४３²½Ⅷ①🙂👍🏽🇫🇷—…“”€№℃Å™▁")


def texts():
    rng = random.Random(1)
    made = list(NASTY)
    for n in (5, 9, 17, 33, 65):
        for _ in range(8):
            made.append("".join(rng.choice(POOL) for _ in range(n)))
    return made


def byte_level(pattern, size=700, **kw):
    tok = Tokenizer(models.BPE(**kw))
    if pattern is None:
        tok.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    else:
        tok.pre_tokenizer = pre_tokenizers.Sequence([
            pre_tokenizers.Split(Regex(pattern), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])
    tok.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(vocab_size=size, show_progress=False,
                                  initial_alphabet=pre_tokenizers.ByteLevel.alphabet())
    tok.train_from_iterator(CORPUS, trainer)
    tok.add_special_tokens(["<|im_start|>", "<|im_end|>", "<|end|>"])
    return tok


def gpt2():
    return byte_level(None)


def gpt2_prefix():
    tok = byte_level(None, 500)
    tok.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    tok.add_tokens([AddedToken("<one>", single_word=True, normalized=False)])
    return tok


def llama3():
    tok = byte_level(LLAMA3, ignore_merges=True)
    bos = tok.token_to_id("<|im_start|>")
    tok.post_processor = processors.Sequence([
        processors.ByteLevel(trim_offsets=False),
        processors.TemplateProcessing(single="<|im_start|> $A", pair="<|im_start|> $A $B",
                                      special_tokens=[("<|im_start|>", bos)])])
    return tok


def qwen2():
    tok = byte_level(QWEN2)
    tok.normalizer = normalizers.NFC()
    tok.add_tokens([AddedToken("<tag>", normalized=False), AddedToken("</tag>", normalized=False)])
    tok.add_special_tokens([AddedToken("<|tool|>", special=True, normalized=False),
                            AddedToken("<|wide|>", special=True, lstrip=True, rstrip=True,
                                       normalized=False)])
    return tok


def gpt4o():
    return byte_level(GPT4O, 600)


def digits():
    tok = byte_level(None, 500)
    tok.pre_tokenizer = pre_tokenizers.Sequence([
        pre_tokenizers.Digits(individual_digits=True),
        pre_tokenizers.Split(Regex(r"[^\S\n]+|\n"), behavior="merged_with_next"),
        pre_tokenizers.Punctuation(behavior="contiguous"),
        pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])
    return tok


def deepseek():
    tok = byte_level(None, 500)
    tok.pre_tokenizer = pre_tokenizers.Sequence([
        pre_tokenizers.Split(Regex(r"[\r\n]"), behavior="isolated"),
        pre_tokenizers.Split(Regex(r"\s?\p{L}+"), behavior="isolated"),
        pre_tokenizers.Split(Regex(r"\s?\p{P}+"), behavior="isolated"),
        pre_tokenizers.Split(Regex(r"\s+$"), behavior="isolated"),
        pre_tokenizers.Digits(individual_digits=False),
        pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])
    return tok


def behaviors():
    tok = byte_level(None, 400)
    tok.pre_tokenizer = pre_tokenizers.Sequence([
        pre_tokenizers.Split("a", behavior="merged_with_previous"),
        pre_tokenizers.Split(Regex(r"\w+"), behavior="removed", invert=True),
        pre_tokenizers.Split(Regex(r"\d"), behavior="merged_with_next"),
        pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])
    return tok


def whitespace():
    tok = byte_level(None, 300)
    tok.pre_tokenizer = pre_tokenizers.Sequence([
        pre_tokenizers.Whitespace(),
        pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])
    return tok


def spm_like(prefix, fallback=True, **kw):
    model = models.BPE(unk_token="<unk>", fuse_unk=True, byte_fallback=fallback, **kw)
    tok = Tokenizer(model)
    if prefix == "normalizer":  # Llama 2
        tok.normalizer = normalizers.Sequence([normalizers.Prepend("▁"),
                                               normalizers.Replace(" ", "▁")])
        train_pre = pre_tokenizers.Metaspace(prepend_scheme="always")
    else:
        train_pre = pre_tokenizers.Metaspace(prepend_scheme=prefix, split=kw.get("split", False))
    specials = ["<unk>", "<s>", "</s>"]
    if fallback:
        specials += [f"<0x{b:02X}>" for b in range(256)]
    norm = tok.normalizer
    tok.normalizer = normalizers.NFKC() if norm is None else normalizers.Sequence([])
    tok.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="always")
    tok.train_from_iterator(CORPUS[:11], trainers.BpeTrainer(
        vocab_size=900, show_progress=False, special_tokens=specials, limit_alphabet=170))
    data = json.loads(tok.to_str())
    data["added_tokens"] = [a for a in data["added_tokens"] if not a["content"].startswith("<0x")]
    tok = Tokenizer.from_str(json.dumps(data))
    if norm is not None:
        tok.normalizer = norm
        tok.pre_tokenizer = None
    else:
        tok.normalizer = normalizers.NFKC()
        tok.pre_tokenizer = train_pre
    tok.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(),
                                     decoders.Fuse(), decoders.Strip(" ", 1, 0)])
    tok.post_processor = processors.TemplateProcessing(
        single="<s> $A", pair="<s> $A $B", special_tokens=[("<s>", tok.token_to_id("<s>"))])
    return tok


def llama2():
    tok = spm_like("normalizer")
    tok.add_tokens([AddedToken("<tag>", normalized=False)])
    return tok


def mistral():
    return spm_like("first")


def metaspace_unk():
    tok = spm_like("always", fallback=False)
    tok.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="always", split=True)
    return tok


def spm(cases):
    import gguf
    import sentencepiece
    from sentencepiece import sentencepiece_model_pb2
    out = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(line for text in CORPUS for line in text.split("\n")),
        model_writer=out, model_type="bpe", vocab_size=700, byte_fallback=True,
        normalization_rule_name="identity", remove_extra_whitespaces=False, minloglevel=2)
    model = sentencepiece_model_pb2.ModelProto.FromString(out.getvalue())
    writer = gguf.GGUFWriter(OUT / "spm.gguf", "llama")
    writer.add_tokenizer_model("llama")
    writer.add_token_list([p.piece for p in model.pieces])
    writer.add_token_scores([p.score for p in model.pieces])
    writer.add_token_types([p.type for p in model.pieces])
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.close()
    sp = sentencepiece.SentencePieceProcessor(model_proto=out.getvalue())
    lines = [" ".join(map(str, [1] + sp.encode(case))) for case in cases]
    (OUT / "spm.ids").write_text("\n".join(lines) + "\n", encoding="utf-8")


def compact(text):
    """The same file in few bytes; qwen2 keeps merges as strings, as older files have them."""
    return json.dumps(json.loads(text), ensure_ascii=False, separators=(",", ":"))


def main():
    OUT.mkdir(exist_ok=True)
    cases = texts()
    for make in (gpt2, gpt2_prefix, llama3, qwen2, gpt4o, digits, deepseek, behaviors, whitespace,
                 llama2, mistral, metaspace_unk):
        tok = make()
        data = json.loads(compact(tok.to_str()))
        if make in (qwen2, llama2):
            data["model"]["merges"] = [" ".join(m) if isinstance(m, list) else m
                                       for m in data["model"]["merges"]]
        text = json.dumps(data, ensure_ascii=make is not gpt2, separators=(",", ":"))
        (OUT / f"{make.__name__}.json").write_text(text + "\n", encoding="utf-8")
        tok = Tokenizer.from_str(text)
        lines = [" ".join(map(str, tok.encode(case).ids)) for case in cases]
        (OUT / f"{make.__name__}.ids").write_text("\n".join(lines) + "\n", encoding="utf-8")
    spm(cases)
    (OUT / "texts.txt").write_text("\n".join(map(json.dumps, cases)) + "\n", encoding="utf-8")
    print("tokenizers", tokenizers.__version__, len(cases), "texts")


if __name__ == "__main__":
    main()
