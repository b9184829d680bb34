# SPDX-License-Identifier: Apache-2.0
"""The exchanges of quern-demo's text: for each subject a method that gives (question, answer)."""

import random
import zlib

from demo_tables import (ANIMALS, CAN, CAN_SUBJECTS, CAPITALS, CITIES, COLOURS, COMPLETIONS,
                         CONTINENTS, COUNT_FACTS, DAYS, DEFINITIONS, ECHO_PHRASES, FACTS,
                         HARD_TASKS, HEROES, HERO_ADJ, HERO_NAMES, JOBS, JOKES, LANGS, LISTS, MIXES,
                         MONTHS, MONTH_DAYS, NOT_UNDERSTOOD, NO_ARTICLE, NUMBER_WORDS, OPPOSITES,
                         OP_SIGNS, ORDINALS, PASTS, PEOPLE, PERSONA, PLACES, PLURALS, POEMS, RHYMES,
                         SHE, SHOWN, SIZES, SMALL_TALK, SPELL, SUM_WORDINGS, SURNAMES, THE_ARTICLE,
                         THINGS, TOO_HARD, TRANSLATED, TRANSLATIONS, UNKNOWN_QUESTIONS,
                         UNKNOWN_TOPICS, YES_NO,
                         )

DONT_KNOW = "I am a small model and do not know that."
TOO_BIG = "That is too big for me. I can do small sums, with numbers up to 99."


def _rows(table):
    return [row.split(":") for row in table.replace("\n", "|").split("|")]


def an(noun):
    return ("an " if noun[0] in "aeiou" else "a ") + noun


def sentence(text):
    return text[0].upper() + text[1:]


def comma_list(items):
    return items[0] if len(items) == 1 else ", ".join(items[:-1]) + " and " + items[-1]


def is_held_out_sum(op, a, b):
    """True for about one sum in ten with a number above 10; such sums are never trained on.

    Sums that differ only in the order of a commutative operation are kept out together.
    """
    if op in "+x":
        a, b = min(a, b), max(a, b)
    return max(a, b) > 10 and zlib.crc32(f"{op}:{a}:{b}".encode()) % 10 == 0


def held_out_sums(limit=20):
    """All held-out (op, a, b) with both numbers in 0..limit."""
    numbers = range(limit + 1)
    return [(op, a, b) for op in "+-x" for a in numbers for b in numbers
            if is_held_out_sum(op, a, b) and (op != "x" or max(a, b) <= 12)]


def result_of(op, a, b):
    return {"+": a + b, "-": a - b, "x": a * b}[op]


def sum_answer(op, a, b):
    return f"{a} {op} {b} = {result_of(op, a, b)}."


class Exchanges:
    """Questions and answers; the same seed gives the same ones in the same order."""

    def __init__(self, seed):
        self.rng = random.Random(seed)
        self.capitals = _rows(CAPITALS)
        self.continents = _rows(CONTINENTS)
        self.animals = _rows(ANIMALS)
        self.opposites = _rows(OPPOSITES)
        self.colours = _rows(COLOURS)
        self.mixes = _rows(MIXES)
        self.jobs = _rows(JOBS)
        self.count_facts = _rows(COUNT_FACTS)
        self.cities = _rows(CITIES)
        self.completions = COMPLETIONS.replace("\n", "|").split("|")
        self.plurals, self.pasts, self.rhymes = _rows(PLURALS), _rows(PASTS), _rows(RHYMES)
        self.heroes = HEROES.replace("\n", "|").split("|")
        self.topics = UNKNOWN_TOPICS.replace("\n", "|").split("|")
        self.exchanges = [(34, self.arithmetic), (3, self.word_problem), (2, self.long_sum),
                          (2.5, self.division), (1.2, self.square), (1.5, self.too_big),
                          (4, self.compare), (3.5, self.counting), (2.5, self.neighbours),
                          (2, self.even_odd), (7, self.capital), (3, self.place),
                          (4.5, self.animal), (1.5, self.can), (4, self.opposite), (4, self.colour),
                          (4, self.calendar), (11, self.definition), (2, self.job),
                          (4, self.count_fact),
                          (5, self.fact), (3, self.yes_no), (2.5, self.kind_of), (1.5, self.size),
                          (9, self.persona), (9, self.small_talk), (2.5, self.joke_or_poem),
                          (2, self.translation), (3, self.grammar), (4, self.list_of),
                          (3, self.spelling), (3, self.repeat), (7, self.story), (8, self.unknown),
                          (3.5, self.too_hard), (1.5, self.gibberish), ]
        self.weights = [w for w, _ in self.exchanges]
        self.makers = [m for _, m in self.exchanges]

    def pick(self, items):
        return self.rng.choice(items)

    def chance(self, p):
        return self.rng.random() < p

    # --- exchanges: each gives (question, answer) ---

    def operands(self, op):
        r = self.rng
        while True:
            kind = r.random()
            if op == "x":
                top = 10 if kind < 0.4 else 12 if kind < 0.9 else 20
            else:
                top = 10 if kind < 0.3 else 20 if kind < 0.75 else 99
            a, b = r.randint(0, top), r.randint(0, top)
            if op == "-" and a < b and self.chance(0.75):
                a, b = b, a
            if not is_held_out_sum(op, a, b):
                return a, b

    def sum_question(self, op, a, b):
        wordings = SUM_WORDINGS["any"] + SUM_WORDINGS[op] * 2
        sign = self.pick(OP_SIGNS[op])
        wording = self.pick(wordings)
        if sign.isalpha() and sign != "x":
            wording = wording.replace("{a}{o}{b}", "{a} {o} {b}")
        words = a <= 20 and b <= 20 and self.chance(0.12)
        show = (lambda n: NUMBER_WORDS[n]) if words else str
        if words and not sign.isalpha():
            sign = {"+": "plus", "-": "minus", "x": "times"}[op]
            wording = wording.replace("{a}{o}{b}", "{a} {o} {b}")
        return sentence(wording.format(a=show(a), b=show(b), o=sign))

    def arithmetic(self):
        op = self.pick("+++--xx")
        a, b = self.operands(op)
        return self.sum_question(op, a, b), sum_answer(op, a, b)

    def long_sum(self):
        a, b, c = (self.rng.randint(0, 10) for _ in range(3))
        ab = a + b
        if is_held_out_sum("+", ab, c):
            return self.arithmetic()
        question = self.pick([
            "What is {0} + {1} + {2}?", "{0}+{1}+{2}", "Add {0}, {1} and {2}.",
            "How much is {0} plus {1} plus {2}?", "{0} + {1} + {2} =",
            "What is the sum of {0}, {1} and {2}?",
        ]).format(a, b, c)
        return question, f"{a} + {b} = {ab}, and {ab} + {c} = {ab + c}."

    def division(self):
        b, q = self.rng.randint(1, 10), self.rng.randint(0, 10)
        r = self.rng.randrange(b) if self.chance(0.3) else 0
        a = b * q + r
        sign = self.pick(["/", ":", "divided by", "\u00f7", "over", "/"])
        question = self.pick([
            "What is {a} {o} {b}?", "{a} {o} {b}", "How much is {a} {o} {b}?", "Divide {a} by {b}.",
            "{a} {o} {b} = ?", "Calculate {a} {o} {b}.",
        ]).format(a=a, b=b, o=sign)
        return question, f"{a} / {b} = {q}." if r == 0 else f"{a} / {b} = {q}, with {r} left over."

    def square(self):
        n = self.rng.randint(1, 12)
        if self.chance(0.5):
            return self.pick([
                f"What is {n} squared?", f"What is the square of {n}?", f"Square {n}.", f"{n}^2",
                f"{n}**2",
            ]), f"{n} squared is {n * n}."
        return self.pick([
            f"What is the square root of {n * n}?", f"Square root of {n * n}?",
            f"What is the root of {n * n}?", f"sqrt({n * n})",
        ]), f"The square root of {n * n} is {n}."

    def too_big(self):
        a, b = self.rng.randint(100, 99999), self.rng.choice(
            [self.rng.randint(2, 99), self.rng.randint(100, 99999)])
        if self.chance(0.4):
            a, b = b, a
        sign = self.pick(["+", "-", "x", "*", "/", "plus", "times", "minus", "divided by"])
        question = self.pick([
            "What is {a} {o} {b}?", "{a} {o} {b}", "{a} {o} {b} =", "How much is {a} {o} {b}?",
            "Calculate {a} {o} {b}.",
        ])
        return question.format(a=a, b=b, o=sign), TOO_BIG

    def word_problem(self):
        one, many = self.pick(THINGS).split(":")
        person = self.pick(PEOPLE)
        he = "she" if person in SHE else "he"
        op = self.pick("+-")
        while True:
            a, b = self.rng.randint(1, 15), self.rng.randint(1, 15)
            if (op == "+" or a >= b) and not is_held_out_sum(op, a, b):
                break
        n = result_of(op, a, b)
        count = lambda k: f"{k} {one if k == 1 else many}"
        if op == "+":
            question = self.pick([
                f"{person} has {count(a)} and gets {b} more. How many {many} does {he} have?",
                f"{person} has {count(a)}. {sentence(he)} finds {b} more. How many {many} does {he} have now?",
                f"There are {a} {many} in a box. {person} puts in {b} more. How many {many} are there?",
                f"If {person} has {count(a)} and buys {b} more, how many {many} does {he} have?",
            ])
        else:
            question = self.pick([
                f"{person} has {count(a)} and gives {b} away. How many {many} are left?",
                f"{person} has {count(a)}. {sentence(he)} loses {b}. How many {many} does {he} have now?",
                f"If {person} has {count(a)} and gives {b} to a friend, how many {many} are left?",
            ])
        return question, f"{a} {op} {b} = {n}, so the answer is {count(n)}."

    def compare(self):
        top = self.pick([10, 20, 99])
        a, b = self.rng.sample(range(top + 1), 2)
        big, small = max(a, b), min(a, b)
        kind = self.rng.randrange(3)
        if kind == 0:
            word = self.pick(["bigger", "larger", "greater", "more"])
            question = self.pick([
                f"Which is {word}, {a} or {b}?", f"What is {word}: {a} or {b}?",
                f"Which number is {word}, {a} or {b}?", f"{a} or {b}, which is {word}?",
            ])
            return question, f"{big} is bigger than {small}."
        if kind == 1:
            word = self.pick(["smaller", "less", "lower"])
            question = self.pick([
                f"Which is {word}, {a} or {b}?", f"What is {word}: {a} or {b}?",
                f"Which number is {word}, {a} or {b}?",
            ])
            return question, f"{small} is smaller than {big}."
        word = self.pick(["bigger", "larger", "greater", "smaller", "less"])
        truth = (a < b) if word in ("smaller", "less") else (a > b)
        plain = "smaller" if word in ("smaller", "less") else "bigger"
        question = f"Is {a} {word} than {b}?"
        return question, f"Yes, {a} is {plain} than {b}." if truth else f"No, {a} is not {plain} than {b}."

    def counting(self):
        r = self.rng
        kind = r.randrange(4)
        if kind == 0:
            n = r.randint(2, 20)
            return self.pick([
                f"Count to {n}.", f"Count from 1 to {n}.", f"Can you count to {n}?",
                f"Please count up to {n}.", f"Say the numbers from 1 to {n}.",
            ]), ", ".join(str(i) for i in range(1, n + 1)) + "."
        if kind == 1:
            a = r.randint(0, 20)
            b = a + r.randint(2, 10)
            return self.pick([
                f"Count from {a} to {b}.", f"Count up from {a} to {b}.",
                f"Numbers from {a} to {b}.",
            ]), ", ".join(str(i) for i in range(a, b + 1)) + "."
        if kind == 2:
            n = r.randint(3, 12)
            return self.pick([
                f"Count backwards from {n}.", f"Count down from {n}.", f"Count down from {n} to 1.",
            ]), ", ".join(str(i) for i in range(n, 0, -1)) + "."
        step = self.pick([2, 5, 10])
        n = r.randint(3, 10)
        return self.pick([
            f"Count in steps of {step} to {step * n}.", f"Count by {step}s to {step * n}."
        ]), ", ".join(str(i * step) for i in range(1, n + 1)) + "."

    def neighbours(self):
        n = self.rng.randint(1, self.pick([20, 98]))
        kind = self.rng.randrange(4)
        if kind == 0:
            return self.pick([
                f"What comes after {n}?", f"What number comes after {n}?",
                f"Which number follows {n}?", f"What is the next number after {n}?",
            ]), f"{n + 1} comes after {n}."
        if kind == 1:
            return self.pick([
                f"What comes before {n}?", f"What number comes before {n}?",
                f"Which number is before {n}?",
            ]), f"{n - 1} comes before {n}."
        if kind == 2:
            n = self.rng.randint(0, 20)
            return self.pick([f"What is double {n}?", f"Double {n}.",
                              f"What is twice {n}?"]), f"Double {n} is {2 * n}."
        n = self.rng.randint(0, 20)
        return self.pick([f"What is half of {2 * n}?", f"Half of {2 * n}?",
                          f"Halve {2 * n}."]), f"Half of {2 * n} is {n}."

    def even_odd(self):
        n = self.rng.randint(0, self.pick([20, 99]))
        word = "even" if n % 2 == 0 else "odd"
        kind = self.rng.randrange(3)
        if kind == 0:
            return self.pick([
                f"Is {n} even or odd?", f"Is {n} odd or even?", f"Is the number {n} even or odd?",
            ]), f"{n} is {word}."
        asked = self.pick(["even", "odd"])
        return self.pick([f"Is {n} {asked}?", f"Is {n} an {asked} number?"
                          ]), f"Yes, {n} is {word}." if asked == word else f"No, {n} is {word}."

    def capital(self):
        country, city = self.pick(self.capitals)
        if self.chance(0.2):
            return (self.pick([
                f"{city} is the capital of which country?",
                f"Which country has the capital {city}?",
                f"Of which country is {city} the capital?",
            ]) if city != "London" else f"Is London the capital of {country}?"), (
                f"{city} is the capital of {country}."
                if city != "London" else f"Yes, London is the capital of {country}.")
        if self.chance(0.1):
            other = self.pick(self.capitals)[1]
            right = other == city
            return f"Is {other} the capital of {country}?", (
                f"Yes, {city}" if right else f"No, {city}") + f" is the capital of {country}."
        return self.pick([
            f"What is the capital of {country}?", f"What is the capital city of {country}?",
            f"Which city is the capital of {country}?", f"Name the capital of {country}.",
            f"Do you know the capital of {country}?", f"Capital of {country}?",
            f"{country} capital", f"And what is the capital of {country}?",
            f"Tell me the capital of {country}.", f"What's {country}'s capital?",
            (f"And of {country}?" if self.chance(0.2) else f"What is the capital of {country}?"),
        ]), f"The capital of {country} is {city}."

    def place(self):
        """Countries and cities by name."""
        kind = self.rng.random()
        if kind < 0.25:
            country, where = self.pick(self.continents)
            return self.pick([
                f"Where is {country}?", f"On which continent is {country}?",
                f"Where can I find {country}?", f"Which continent is {country} in?",
            ]), f"{country} is in {where}."
        if kind < 0.5:
            country, where = self.pick(self.continents)
            capital = dict(self.capitals)[country]
            return self.pick([
                f"Tell me about {country}.", f"What is {country}?",
                f"What do you know about {country}?", f"Describe {country}.",
            ]), f"{country} is a country in {where}, and its capital is {capital}."
        if kind < 0.8:
            country, city = self.pick([row for row in self.capitals if row[1] != "London"] +
                                      [["England", "London"]])
            return self.pick([
                f"Tell me about {city}.", f"What is {city}?", f"Where is {city}?",
                f"What do you know about {city}?", f"In which country is {city}?",
                f"Describe {city}.",
            ]), f"{city} is the capital of {country}."
        city, country = self.pick(self.cities)
        return self.pick([
            f"Tell me about {city}.", f"What is {city}?", f"Where is {city}?",
            f"What do you know about {city}?", f"In which country is {city}?",
        ]), f"{city} is a city in {country}."

    def can(self):
        what = self.pick(list(CAN))
        able = CAN[what].split()
        if self.chance(0.5):
            who = self.pick(able)
            return self.pick([
                f"Can {an(who)} {what}?",
                (f"Can {who}s {what}?" if who not in ("fish", "goose", "child", "person",
                                                      "butterfly") else f"Can {an(who)} {what}?"),
            ]), f"Yes, {an(who)} can {what}."
        who = self.pick([w for w in CAN_SUBJECTS if w not in able])
        return f"Can {an(who)} {what}?", f"No, {an(who)} cannot {what}."

    def kind_of(self):
        """Is an apple a fruit? Is grass red?"""
        if self.chance(0.4):
            thing, col = self.pick(self.colours)
            asked = col if self.chance(0.5) else self.pick(LISTS["colours"].split())
            return f"Is {thing} {asked}?", f"Yes, {thing} is {col}." if asked == col else f"No, {thing} is {col}."
        groups = [
            "fruits", "vegetables", "animals", "birds", "flowers", "tools", "instruments", "drinks",
        ]
        real, asked = self.pick(groups), self.pick(groups)
        if self.chance(0.4):
            asked = real
        item = self.pick(LISTS[real].split())
        if "tomato" in item or (real, asked) in (("birds", "animals"), ("animals", "birds")):
            return self.definition()
        shown = item if real == "drinks" else an(item)
        if self.chance(0.25) and asked != real:
            return f"Is {shown} {an(real[:-1])} or {an(asked[:-1])}?", sentence(
                f"{shown} is {an(real[:-1])}.")
        return self.pick([f"Is {shown} {an(asked[:-1])}?", f"Is {item} {an(asked[:-1])}?"
                          ]), ("Yes" if real == asked else "No") + f", {shown} is {an(real[:-1])}."

    def animal(self):
        name, verb, sound, young, legs, home = self.pick(self.animals)
        kind = self.rng.randrange(6)
        if kind < 3:
            return self.pick([
                f"What sound does {an(name)} make?", f"What does {an(name)} say?",
                f"What noise does {an(name)} make?", f"How does {an(name)} sound?",
                (f"What do {name}s say?" if name not in ("mouse", "wolf", "sheep", "goose") else
                 f"What does the {name} say?"), f"Which sound does the {name} make?",
                f"What does the {name} say?",
            ]), sentence(f"{an(name)} {verb}: {sound}!")
        if kind == 3:
            return self.pick([
                f"What is a young {name} called?", f"What is a baby {name} called?",
                f"What do you call a baby {name}?",
            ]), sentence(f"a young {name} is called {an(young)}.")
        if kind == 4:
            return self.pick([
                f"How many legs does {an(name)} have?", f"How many legs has {an(name)}?"
            ]), sentence(f"{an(name)} has {legs if legs != '0' else 'no'} legs.")
        return self.pick([
            f"Where does {an(name)} live?", f"Where do you find {an(name)}?",
            f"Where does the {name} live?",
        ]), sentence(f"{an(name)} lives {home}.")

    def opposite(self):
        a, b = self.pick(self.opposites)
        if self.chance(0.5) and (b, a) != ("old", "new"):
            if (b not in [x for x, _ in self.opposites]
                    and [y for _, y in self.opposites].count(b) == 1):
                a, b = b, a
        return self.pick([
            f"What is the opposite of {a}?", f"Opposite of {a}?", f"Name the opposite of {a}.",
            f"Tell me the opposite of {a}.", f"What's the contrary of {a}?",
            f"And the opposite of {a}?", f"{a} - opposite?", f"Give me the antonym of {a}.",
        ]), f"The opposite of {a} is {b}."

    def colour(self):
        word = self.pick(["colour", "color"])
        if self.chance(0.2):
            a, b, c = self.pick(self.mixes)
            if self.chance(0.5):
                a, b = b, a
            return self.pick([
                f"What {word} do you get from {a} and {b}?",
                f"What do you get if you mix {a} and {b}?", f"Mix {a} and {b}.",
                f"Which {word} do {a} and {b} make?",
            ]), sentence(f"{a} and {b} make {c}.")
        thing, col = self.pick(self.colours)
        return self.pick([
            f"What {word} is {thing}?", f"Which {word} is {thing}?",
            f"What is the {word} of {thing}?", f"Tell me the {word} of {thing}.",
            f"What {word} does {thing} have?",
        ]), sentence(f"{thing} is {col}.")

    def calendar(self):
        names, unit = self.pick([(DAYS, "day"), (DAYS, "day"), (MONTHS, "month")])
        i = self.rng.randrange(len(names))
        kind = self.rng.randrange(5)
        if kind == 0:
            nxt = names[(i + 1) % len(names)]
            return self.pick([
                f"What {unit} comes after {names[i]}?", f"Which {unit} follows {names[i]}?",
                f"What comes after {names[i]}?", f"What {unit} is after {names[i]}?",
            ]), f"{nxt} comes after {names[i]}."
        if kind == 1:
            prev = names[i - 1]
            return self.pick([
                f"What {unit} comes before {names[i]}?", f"Which {unit} is before {names[i]}?",
                f"What comes before {names[i]}?",
            ]), f"{prev} comes before {names[i]}."
        if kind == 2:
            period = "week" if unit == "day" else "year"
            return self.pick([
                f"What is the {ORDINALS[i]} {unit} of the {period}?",
                f"Which {unit} is the {ORDINALS[i]} of the {period}?",
                f"Name the {ORDINALS[i]} {unit} of the {period}.",
            ]), f"The {ORDINALS[i]} {unit} of the {period} is {names[i]}."
        if kind == 3:
            m = self.rng.randrange(12)
            return self.pick([
                f"How many days does {MONTHS[m]} have?", f"How many days are in {MONTHS[m]}?",
                f"How long is {MONTHS[m]}?",
            ]), f"{MONTHS[m]} has {MONTH_DAYS[m]} days."
        d = self.rng.randrange(7)
        return self.pick([
            f"If today is {DAYS[d]}, what day is tomorrow?",
            f"Today is {DAYS[d]}. What is tomorrow?", f"What is the day after {DAYS[d]}?",
        ]), f"The day after {DAYS[d]} is {DAYS[(d + 1) % 7]}."

    def definition(self):
        word = self.pick(list(DEFINITIONS))
        shown = SHOWN.get(word, word)
        if word in NO_ARTICLE:
            thing = shown
        elif word in THE_ARTICLE:
            thing = "the " + shown
        elif word in ("gpu", "cpu"):
            thing = "a " + shown
        else:
            thing = an(shown) if word != "llm" else "an LLM"
        return self.pick([
            f"What is {thing}?", f"What is {thing}?", f"What's {thing}?", f"Tell me about {thing}.",
            f"Define {shown}.", f"What does {shown} mean?", f"Explain what {thing} is.",
            f"Do you know what {thing} is?", f"Describe {thing}.",
            f"What does the word {shown} mean?", f"Can you tell me what {thing} is?",
        ]), DEFINITIONS[word]

    def job(self):
        who, does = self.pick(self.jobs)
        if self.chance(0.7):
            return self.pick([
                f"What does {an(who)} do?", f"What is the job of {an(who)}?",
                f"What work does {an(who)} do?",
            ]), sentence(f"{an(who)} {does}.")
        return self.pick([f"Who {does}?",
                          f"What do you call a person who {does}?"]), sentence(f"{an(who)} {does}.")

    def count_fact(self):
        what, whole, n = self.pick(self.count_facts)
        verb = "has" if whole != "the solar system" else "has"
        one = what[:-1] if n == "1" else what
        return self.pick([
            f"How many {what} does {whole} have?", f"How many {what} are in {whole}?",
            f"How many {what} are there in {whole}?", f"How many {what} has {whole}?",
            f"What is the number of {what} in {whole}?",
        ]), sentence(f"{whole} {verb} {n} {one}.")

    def fact(self):
        questions, answer = self.pick(FACTS)
        return self.pick(questions), answer

    def yes_no(self):
        return self.pick(YES_NO)

    def size(self):
        i, j = self.rng.sample(range(len(SIZES)), 2)
        a, b = SIZES[i], SIZES[j]
        big, small = (a, b) if i > j else (b, a)
        if self.chance(0.4):
            return self.pick([
                f"Which is bigger, {an(a)} or {an(b)}?", f"What is bigger: {an(a)} or {an(b)}?",
                f"Which animal is larger, {an(a)} or {an(b)}?",
            ]), sentence(f"{an(big)} is bigger than {an(small)}.")
        return self.pick([
            f"Is {an(a)} bigger than {an(b)}?", f"Is {an(a)} larger than {an(b)}?"
        ]), ("Yes" if big == a else "No") + f", {an(big)} is bigger than {an(small)}."

    def persona(self):
        questions, answer = self.pick(PERSONA)
        return self.pick(questions), answer

    def small_talk(self):
        questions, answers = self.pick(SMALL_TALK if self.chance(0.7) else SMALL_TALK[:6])
        return self.pick(questions), self.pick(answers)

    def joke_or_poem(self):
        about = (" about " + self.pick([
            an(self.pick(self.heroes)),
            self.pick(self.heroes) + "s", "the " +
            self.pick(["sea", "sun", "rain", "moon", "night", "snow", "spring"]),
            self.pick(["love", "programming", "recursion", "winter", "food", "computers"]),
        ]) if self.chance(0.3) else "")
        if self.chance(0.5):
            return self.pick([
                "Tell me a joke{}.", "Do you know a joke{}?", "Make me laugh.",
                "Say something funny.", "Another joke{}, please.", "A joke{}, please.",
                "Can you tell me a joke{}?", "Joke{}", "Tell me a funny joke{}.",
            ]).format(about), self.pick(JOKES)
        return self.pick([
            "Write a poem{}.", "Tell me a poem{}.", "Do you know a poem{}?",
            "A short poem{}, please.", "Write me a short poem{}.", "Can you write a poem{}?",
            "Write a haiku{}.", "Sing a song{}.", "Write a song{}.", "Write a haiku{}.",
        ]).format(about), self.pick(POEMS)

    def translation(self):
        language = self.pick(list(TRANSLATIONS))
        i = self.pick([0, 0, 1, 2, 3, 4])
        word, said = TRANSLATED[i], TRANSLATIONS[language].split("|")[i]
        return self.pick([
            f"How do you say {word} in {language}?", f"What is {word} in {language}?",
            f"Translate {word} into {language}.", f"What is the {language} word for {word}?",
            f"Say {word} in {language}.", f"{word} in {language}?",
        ]), sentence(f"{word} in {language} is {said}.")

    def grammar(self):
        kind = self.rng.randrange(3)
        if kind == 0:
            a, b = self.pick(self.plurals)
            return self.pick([
                f"What is the plural of {a}?", f"Plural of {a}?", f"One {a}, two ...?",
                f"What is more than one {a} called?",
            ]), f"The plural of {a} is {b}."
        if kind == 1:
            a, b = self.pick(self.pasts)
            return self.pick([
                f"What is the past tense of {a}?", f"Past tense of {a}?",
                f"What is the past of {a}?",
            ]), f"The past tense of {a} is {b}."
        a, b = self.pick(self.rhymes)
        if self.chance(0.5):
            a, b = b, a
        return self.pick([
            f"What rhymes with {a}?", f"Find a rhyme for {a}.", f"Which word rhymes with {a}?",
            f"Give me a rhyme for {a}.",
        ]), sentence(f"{b} rhymes with {a}.")

    def list_of(self):
        kind = self.pick(list(LISTS))
        items = LISTS[kind].split()
        n = self.rng.randint(2, 5)
        shown = comma_list(self.rng.sample(items, n))
        count = self.pick([str(n), NUMBER_WORDS[n]])
        asked = kind.replace("colours", self.pick(["colours", "colors"]))
        answer = sentence(f"{NUMBER_WORDS[n]} {kind} are {shown}.")
        return self.pick([
            f"Name {count} {asked}.", f"List {count} {asked}.", f"Tell me {count} {asked}.",
            f"Give me {count} {asked}.", f"Can you name {count} {asked}?",
            f"What are {count} {asked}?",
        ]), answer

    def spelling(self):
        word = self.pick(SPELL)
        kind = self.rng.randrange(4)
        if kind == 0:
            return self.pick(
                [f"Spell {word}.", f"How do you spell {word}?",
                 f"Spell the word {word}."]), "-".join(word) + "."
        if kind == 1:
            return self.pick([
                f"How many letters does {word} have?", f"How many letters are in {word}?",
                f"How many letters are in the word {word}?",
            ]), f"The word {word} has {len(word)} letters."
        if kind == 2:
            first = self.chance(0.6)
            return f"What is the {'first' if first else 'last'} letter of {word}?", f"The {'first' if first else 'last'} letter of {word} is {word[0] if first else word[-1]}."
        i = self.rng.randrange(1, 26)
        a, b = chr(96 + i), chr(97 + i)
        return self.pick([
            f"Which letter comes after {a}?", f"What letter comes after {a}?",
            f"What letter follows {a}?",
        ]), f"The letter {b} comes after {a}."

    def repeat(self):
        if self.chance(0.5):
            text = self.pick(ECHO_PHRASES.replace("\n", "|").split("|"))
        else:
            text = " ".join(self.rng.sample(SPELL, self.rng.randint(1, 4)))
        return self.pick([
            f"Say {text}.", f"Say: {text}", f"Repeat: {text}.", f"Repeat after me: {text}.",
            f"Please say {text}.", f"Echo {text}.", f'Say "{text}".', f"Just say {text}.",
            f"Reply with {text}.",
        ]), sentence(text) + "."

    def too_hard(self):
        task = self.pick(HARD_TASKS.replace("\n", "|").split("|"))
        about = self.pick([
            "", "", "", " for me", " about " + self.pick(self.topics),
            " in " + self.pick(LANGS) if "write" in task else "",
            " about my " + self.pick(["dog", "job", "house", "day", "friend"]),
        ])
        task += about
        return self.pick([
            f"Can you {task}?",
            sentence(f"{task}."), f"Please {task}.", f"Could you {task}?", f"Help me to {task}.",
            f"I want you to {task}.", f"Can you help me {task}?", f"How do I {task}?",
        ]), TOO_HARD

    def gibberish(self):
        r = self.rng
        kind = r.randrange(4)
        if kind == 0:
            text = "".join(r.choice("abcdefghijklmnopqrstuvwxyz") for _ in range(r.randint(4, 12)))
        elif kind == 1:
            text = "".join(r.choice("asdfjkl") for _ in range(r.randint(4, 10)))
        elif kind == 2:
            text = "".join(r.choice("?!.,;:-_#*+/()[]{}<>|%&$@~^") for _ in range(r.randint(1, 6)))
        else:
            text = " ".join(self.odd_word() for _ in range(r.randint(1, 4)))
        return text, NOT_UNDERSTOOD

    def odd_word(self):
        first, rest = "bdfgklmnprstvz", [
            "a", "e", "i", "o", "u", "ar", "en", "il", "om", "ux", "ee", "oo", "ink", "ast", "orp",
        ]
        word = "".join(self.pick(first) + self.pick(rest) for _ in range(self.rng.randint(1, 3)))
        known = set(DEFINITIONS) | set(SPELL)
        return word if word not in known and len(word) > 2 else "zorbin"

    def unknown(self):
        question = self.pick(UNKNOWN_QUESTIONS)
        lower = self.rng.random()
        values = dict(year=self.rng.randint(1500, 2030),
                      person=self.pick(PEOPLE),
                      surname=self.pick(SURNAMES),
                      noun=self.pick(list(DEFINITIONS)),
                      country=self.pick(self.capitals)[0],
                      lang=self.pick(LANGS),
                      big=self.rng.choice([5, 7, 10, 13, 20, 150, 200, 333, 500, 777, 1000, 12345]),
                      lang2=self.pick(list(TRANSLATIONS)),
                      odd=self.odd_word() if lower < 0.6 else sentence(self.odd_word()),
                      topic=self.pick(self.topics),
                      topic2=self.pick(self.topics),
                      )
        return question.format(**values), DONT_KNOW

    # --- stories ---

    def story_text(self, hero=None):
        hero = hero or self.pick(self.heroes)
        name, friend_name = self.rng.sample(HERO_NAMES, 2)
        friend = self.pick([h for h in self.heroes[:24] if h != hero])
        adj, adj2 = self.rng.sample(HERO_ADJ, 2)
        place = self.pick(PLACES)
        start = self.pick([
            f"Once upon a time there was {an(adj + ' ' + hero)} named {name} who lived {place}.",
            f"Once upon a time, {an(adj + ' ' + hero)} lived {place}. Its name was {name}.",
            f"There once was {an(adj + ' ' + hero)} called {name}. {name} lived {place}.",
        ])
        when = self.pick(
            ["One day", "One morning", "One rainy day", "One evening", "One cold winter day"])
        met = f"{an(adj2 + ' ' + friend)} named {friend_name}"
        plot = self.pick(["lost", "hungry", "storm", "afraid", "lonely", "gift", "race", "moon"])
        if plot == "lost":
            thing = self.pick(
                ["a red ball", "a golden key", "a warm hat", "a little bell", "a blue scarf"])
            it = thing.split(" ", 1)[1]
            body = [
                f"{when}, {name} lost {thing} and was very sad.",
                f"{name} looked everywhere, but could not find it.",
                f'Then came {met}. "Do not cry," said {friend_name}. "I will help you."',
                self.pick([
                    f"Together they looked under every stone, and at last they found the {it}.",
                    f"They searched until the sun went down, and there it was: the {it} lay in the grass.",
                ]),
            ]
        elif plot == "hungry":
            food = self.pick(["bread", "soup", "cake", "honey", "apples", "cheese"])
            body = [
                f"{when}, {name} was very hungry, but there was nothing to eat.",
                f"{name} walked a long way and met {met}.",
                f'"I have some {food}," said {friend_name}. "Let us share it."',
                f"They sat down and ate the {food} together, and it tasted very good.",
            ]
        elif plot == "storm":
            body = [
                f"{when}, a big storm came, and the wind blew the roof away.",
                f"{name} was cold and wet.",
                f'A neighbour, {met}, opened the door. "Come in," said {friend_name}, "it is warm here."',
                "The next day they built a new roof together.",
            ]
        elif plot == "afraid":
            fear = self.pick(["the dark", "deep water", "thunder", "high places"])
            body = [
                f"{name} was afraid of {fear}.",
                f"{when}, {friend_name}, {an(adj2 + ' ' + friend)}, called for help.",
                f"{name} forgot the fear, ran as fast as possible, and saved {friend_name}.",
                f"From that day on, {name} was not afraid of {fear} any more.",
            ]
        elif plot == "lonely":
            body = [
                f"{name} had no friends and was lonely.",
                f"{when}, {name} heard a song and followed it.", f"There sat {met}, singing.",
                f'"Will you sing with me?" asked {friend_name}. And {name} sang, at first softly, and then with joy.',
            ]
        elif plot == "gift":
            gift = self.pick([
                "a flower", "a shiny stone", "a warm blanket", "a little boat", "a book", "a cake"
            ])
            body = [
                f"{when}, {name} wanted to give a friend {gift}.",
                f"So {name} worked all day, until it was done.",
                f'The friend was {met}. "For me?" asked {friend_name}. "This is the best gift of all!"',
                "They laughed and danced until night came.",
            ]
        elif plot == "race":
            body = [
                f"{when}, there was a race, and {name} wanted to win.",
                f"{friend_name}, {an(adj2 + ' ' + friend)}, ran ahead, but fell over a stone.",
                f"{name} stopped and helped {friend_name} up.",
                "So they crossed the line together, and both of them won.",
            ]
        else:
            body = [
                f"{name} wanted to touch the moon.",
                f"{when}, {name} climbed the highest hill, but the moon was still too far.",
                f'There sat {met}. "Look into the lake," said {friend_name}.',
                f"The moon was shining in the water, and {name} could touch it at last.",
            ]
        end = self.pick([
            f"And so {name} and {friend_name} became good friends.",
            "And they lived happily ever after.",
            f"{name} went home happy and slept well that night.",
            f"Since that day, {name} and {friend_name} have been the best of friends.",
        ])
        return (" ".join([start] + body +
                         [end, "The end."]) if self.chance(0.5) else " ".join([start] + body +
                                                                              [end]))

    def one_sentence_story(self):
        hero = self.pick(self.heroes)
        adj, name = self.pick(HERO_ADJ), self.pick(HERO_NAMES)
        found = self.pick([
            "found a star", "made a new friend", "followed a butterfly home", "sang to the moon",
            "shared a cake with a friend", "found a golden key", "danced in the rain",
        ])
        question = self.pick([
            "Write a one-sentence story about {}.", "Write a one-sentence bedtime story about {}.",
            "Tell me a very short story about {}.", "Tell a story about {} in one sentence.",
            "Tell me a story about {} in one sentence.",
        ])
        return question.format(
            an(hero)
        ), f"Once upon a time, {an(adj + ' ' + hero)} named {name} {found} {self.pick(PLACES)}, and slept happily that night."

    def story(self):
        if self.chance(0.15):
            return self.one_sentence_story()
        if self.chance(0.4):
            return self.pick([
                "Tell me a story.", "Tell a story.", "A story, please.", "Can you tell me a story?",
                "Tell me a short story.", "Write a story.", "Write a short story.",
                "I want a story.", "Do you know a story?", "Once upon a time", "Read me a story.",
                "Tell me a bedtime story.", "Another story, please.", "Tell me a tale.",
            ]), self.story_text()
        hero = self.pick(self.heroes)
        return self.pick([
            f"Tell me a story about {an(hero)}.", f"Write a story about {an(hero)}.",
            f"Tell a short story about {an(hero)}.", f"Can you tell me a story about {an(hero)}?",
            f"I want a story about {an(hero)}.", f"A story about {an(hero)}, please.",
            f"Write a tiny story about {an(hero)}.", f"Story about {an(hero)}",
        ]), self.story_text(hero)
