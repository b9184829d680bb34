#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Text for the bundled model quern-demo, made from tables, templates and a seed.

demo_tables.py holds the tables, demo_exchanges.py a method for each subject that gives a question
and its answer; this file writes them as people type and strings them together to documents.
Everything the model learns is written here: no data set is read and nothing is downloaded.
`Writer(seed).document()` gives one training document, a list of (role, text) turns; the role
"text" stands for plain prose without chat marks. Run the file to look at samples.

Two things are kept from training so that they can be measured afterwards:
  - sums for which `is_held_out_sum` is true never appear as a sum (a square or a double may);
  - documents for which `is_held_out_document` is true are skipped by `training_document`.
"""

import argparse
import zlib

from demo_exchanges import Exchanges, an, is_held_out_sum, result_of, sentence, sum_answer
from demo_tables import JOKES, LISTS, PEOPLE, POEMS, SYSTEM_PROMPTS

NAME = "quern-demo"


class Writer(Exchanges):
    """Writes documents; the same seed gives the same documents."""

    # --- the user's way of writing ---

    def vary(self, text):
        """The same question as people type it: other case, no stops, short forms, a typing slip."""
        r = self.rng
        if r.random() < 0.12 and text[-1] in "?." and len(text) > 12:
            lead = self.pick([
                "Please: ", "Hi! ", "Hello, ", "Hey, ", "Tell me, ", "Question: ", "Ok, ", "So, ",
                "Hi, ", "Quick question: ",
            ])
            text = lead + text
        elif r.random() < 0.06 and text[-1] in "?." and text[:1].isupper():
            text = text[:-1] + (", please" if self.chance(0.7) else " please") + text[-1]
        if r.random() < 0.25:
            for a, b in (("What is", "What's"), ("I am", "I'm"), ("Who is", "Who's"),
                         ("do not", "don't"), ("How is", "How's"),
                         ):
                text = text.replace(a, b)
        if not text:
            return text
        p = r.random()
        if p < 0.30:
            text = text.lower()
        elif p < 0.32:
            text = text.upper()
        if r.random() < 0.28 and text[-1] in "?.!":
            text = text[:-1]
        elif r.random() < 0.05 and text[-1] in "?.":
            text = text[:-1] + self.pick(["!", "??", "...", " ?", "?!", "."])
        if r.random() < 0.06:
            text = text.replace("'", "")
        if r.random() < 0.04 and len(text) > 10:
            i = r.randrange(1, len(text) - 1)
            if text[i].isalpha() and text[i + 1].isalpha():
                text = text[:i] + self.pick(
                    [text[i + 1:], text[i] + text[i:], text[i + 1] + text[i] + text[i + 2:]])
        if r.random() < 0.02:
            text = " " + text
        if r.random() < 0.02:
            text += " "
        return text

    def exchange(self):
        question, answer = self.rng.choices(self.makers, self.weights)[0]()
        return self.vary(question), answer

    # --- documents ---

    def named_chat(self):
        """A chat in which the user's name, or a thing, has to be remembered."""
        name = self.pick(PEOPLE)
        kind = self.rng.randrange(3)
        if kind < 2:
            first = (self.pick([
                f"My name is {name}.", f"I am {name}.", f"Hi, I am {name}.",
                f"Hello, my name is {name}.", f"Call me {name}.",
            ]), f"Nice to meet you, {name}!",
                     )
            ask = (self.pick([
                "What is my name?", "Who am I?", "Do you remember my name?", "Do you know my name?",
            ]), f"Your name is {name}.",
                   )
        else:
            thing = self.pick(["colour", "animal", "food"])
            value = self.pick(LISTS[{
                "colour": "colours",
                "animal": "animals",
                "food": "fruits"
            }[thing]].split())
            first = (self.pick([f"My favourite {thing} is {value}.", f"I like {value} best."]),
                     f"That is nice! I will remember {value}.",
                     )
            ask = (self.pick([f"What is my favourite {thing}?",
                              f"Which {thing} do I like?"]), f"You like {value}.",
                   )
        middle = [self.exchange() for _ in range(self.pick([0, 0, 1, 2]))]
        if not self.chance(0.15):
            return [(self.vary(first[0]), first[1])] + middle + [(self.vary(ask[0]), ask[1])]
        if kind < 2:
            return [(self.vary(ask[0]), "You have not told me your name.")]
        return [(self.vary(ask[0]), "You have not told me that.")]

    def follow_up(self):
        """Two exchanges of which the second only makes sense after the first."""
        kind = self.rng.randrange(8)
        if kind == 0:
            (c1, city1), (c2, city2) = self.rng.sample(self.capitals, 2)
            return [(f"What is the capital of {c1}?", f"The capital of {c1} is {city1}."),
                    (self.pick([
                        f"And {c2}?", f"And of {c2}?", f"What about {c2}?",
                        f"And the capital of {c2}?",
                    ]), f"The capital of {c2} is {city2}.",
                     ), ]
        if kind == 1:
            (a1, b1), (a2, b2) = self.rng.sample(self.opposites, 2)
            return [(f"What is the opposite of {a1}?", f"The opposite of {a1} is {b1}."),
                    (self.pick([f"And of {a2}?", f"And {a2}?",
                                f"What about {a2}?"]), f"The opposite of {a2} is {b2}.",
                     ), ]
        if kind == 2:
            first, second = self.rng.sample(self.animals, 2)
            asked = lambda n, v, s: sentence(f"{an(n)} {v}: {s}!")
            return [(f"What does {an(first[0])} say?", asked(*first[:3])),
                    (self.pick([
                        f"And {an(second[0])}?", f"What about {an(second[0])}?",
                        f"And the {second[0]}?",
                    ]), asked(*second[:3]),
                     ), ]
        if kind == 3:
            make = self.pick([
                lambda: ("Tell me a joke.", self.pick(JOKES)), lambda:
                ("Write a poem.", self.pick(POEMS)), lambda:
                ("Tell me a story.", self.story_text()),
            ])
            return [
                make(),
                (self.pick([
                    "Another one, please.", "Another one.", "One more.", "Again.",
                    "Tell me another one.", "More!",
                ]), make()[1],
                 ),
            ]
        if kind in (4, 5):
            while True:
                op1, op2 = self.pick("+-x"), self.pick("+-")
                a, b = self.operands(op1)
                n, c = result_of(op1, a, b), self.rng.randint(1, 10)
                if 0 <= n <= 89 and not is_held_out_sum(op2, n, c):
                    break
            word = {"+": ["plus", "+", "and add"], "-": ["minus", "-", "and take away"]}[op2]
            return [(self.sum_question(op1, a, b), sum_answer(op1, a, b)),
                    (self.pick([(f"And {self.pick(word)} {c}?"
                                 if "and" not in word[2] else f"And {self.pick(word[:2])} {c}?"),
                                f"Now {self.pick(word[:2])} {c}.", {
                                    "+": f"Add {c}.",
                                    "-": f"Subtract {c}."
                                }[op2], f"{self.pick(word[:2])} {c}", ]), sum_answer(op2, n, c),
                     ), ]
        first = self.exchange()
        while len(first[1]) > 90:
            first = self.exchange()
        if kind == 6:
            return [
                first,
                (self.pick([
                    "Are you sure?", "Really?", "Is that right?", "Is that true?",
                    "Are you certain?",
                ]), "I think so, but I am very small, so please check.",
                 ),
            ]
        return [
            first,
            (self.pick([
                "Say that again.", "Can you repeat that?", "Repeat that.", "What did you say?",
                "Again, please.", "Pardon?",
            ]), first[1],
             ),
        ]

    def chat(self, exchanges):
        turns = []
        if self.chance(0.3):
            turns.append(("system", self.pick(SYSTEM_PROMPTS)))
        pairs = []
        while len(pairs) < exchanges:
            p = self.rng.random()
            if p < 0.04:
                pairs += self.named_chat()
            elif p < 0.12:
                pairs += [(self.vary(q), a) for q, a in self.follow_up()]
            else:
                pairs.append(self.exchange())
        for question, answer in pairs:
            turns += [("user", question), ("assistant", answer)]
        return turns

    def document(self):
        p = self.rng.random()
        if p < 0.025:
            return [("text", self.story_text())]
        if p < 0.04:
            return [("text", self.pick(self.completions))]
        if p < 0.06:
            return [("text", " ".join(sentence(self.exchange()[1].rstrip()) for _ in range(4)))]
        return self.chat(self.pick([1, 1, 1, 1, 2, 2, 3, 4]))

    def training_document(self):
        while True:
            doc = self.document()
            if not is_held_out_document(doc):
                return doc

    def held_out_document(self):
        while True:
            doc = self.document()
            if is_held_out_document(doc):
                return doc


def is_held_out_document(doc):
    return zlib.crc32(repr(doc).encode()) % 50 == 0


def main():
    parser = argparse.ArgumentParser(
        description="Print samples of the text that quern-demo is trained on. Needs Python only.")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--count", type=int, default=20)
    args = parser.parse_args()
    writer = Writer(args.seed)
    for _ in range(args.count):
        for role, text in writer.document():
            print(f"{role}: {text}")
        print("--")


if __name__ == "__main__":
    main()
