# SPDX-License-Identifier: Apache-2.0
"""Tables from which demo_text.py writes the text for quern-demo: facts, wordings, names.

A string table holds rows separated by "|" or a line end, and columns separated by ":".
"""

CAPITALS = """Argentina:Buenos Aires|Australia:Canberra|Austria:Vienna|Belgium:Brussels|Brazil:Brasilia
Bulgaria:Sofia|Canada:Ottawa|Chile:Santiago|China:Beijing|Colombia:Bogota|Croatia:Zagreb|Cuba:Havana
Czechia:Prague|Denmark:Copenhagen|Egypt:Cairo|England:London|Estonia:Tallinn|Ethiopia:Addis Ababa
Finland:Helsinki|France:Paris|Germany:Berlin|Ghana:Accra|Greece:Athens|Hungary:Budapest
Iceland:Reykjavik|India:New Delhi|Indonesia:Jakarta|Iran:Tehran|Iraq:Baghdad|Ireland:Dublin|Italy:Rome
Jamaica:Kingston|Japan:Tokyo|Kenya:Nairobi|Latvia:Riga|Lithuania:Vilnius|Mexico:Mexico City
Morocco:Rabat|Nepal:Kathmandu|New Zealand:Wellington|Nigeria:Abuja|Norway:Oslo|Pakistan:Islamabad
Peru:Lima|Poland:Warsaw|Portugal:Lisbon|Romania:Bucharest|Russia:Moscow|Scotland:Edinburgh
Serbia:Belgrade|Slovakia:Bratislava|Slovenia:Ljubljana|South Korea:Seoul|Spain:Madrid|Sweden:Stockholm
Switzerland:Bern|Thailand:Bangkok|Turkey:Ankara|Ukraine:Kyiv|the United Kingdom:London
the United States:Washington|Vietnam:Hanoi|Wales:Cardiff"""

CONTINENTS = """Argentina:South America|Australia:Oceania|Brazil:South America|Canada:North America
China:Asia|Egypt:Africa|France:Europe|Germany:Europe|Greece:Europe|India:Asia|Italy:Europe|Japan:Asia
Kenya:Africa|Mexico:North America|Nigeria:Africa|Norway:Europe|Peru:South America|Poland:Europe
Spain:Europe|Sweden:Europe|Thailand:Asia|Vietnam:Asia|Morocco:Africa|Chile:South America"""

# animal:verb:sound:young:legs:where it lives
ANIMALS = """cat:meows:meow:kitten:4:in a house|dog:barks:woof:puppy:4:in a house
cow:moos:moo:calf:4:on a farm|sheep:bleats:baa:lamb:4:on a farm|pig:oinks:oink:piglet:4:on a farm
horse:neighs:neigh:foal:4:on a farm|duck:quacks:quack:duckling:2:near a pond
hen:clucks:cluck:chick:2:on a farm|goat:bleats:meh:kid:4:on a farm|lion:roars:roar:cub:4:on the savanna
tiger:roars:roar:cub:4:in the jungle|bear:growls:growl:cub:4:in the forest
wolf:howls:awoo:pup:4:in the forest|frog:croaks:ribbit:tadpole:4:near a pond
owl:hoots:hoo:owlet:2:in the forest|bee:buzzes:buzz:larva:6:in a hive
snake:hisses:hiss:snakelet:0:in the grass|mouse:squeaks:squeak:pup:4:in a small hole
rooster:crows:cock-a-doodle-doo:chick:2:on a farm|donkey:brays:hee-haw:foal:4:on a farm
elephant:trumpets:toot:calf:4:on the savanna|bird:chirps:tweet:chick:2:in a nest
goose:honks:honk:gosling:2:near a lake|crow:caws:caw:chick:2:in a tree|fox:yelps:yip:kit:4:in the forest"""

OPPOSITES = """hot:cold|big:small|tall:short|fast:slow|happy:sad|light:dark|day:night|up:down|left:right
in:out|open:closed|old:young|new:old|good:bad|hard:soft|high:low|wet:dry|full:empty|rich:poor
strong:weak|early:late|loud:quiet|near:far|thick:thin|wide:narrow|clean:dirty|heavy:light|first:last
begin:end|start:stop|buy:sell|give:take|love:hate|win:lose|push:pull|yes:no|true:false|black:white
north:south|east:west|summer:winter|above:below|before:after|inside:outside|front:back|easy:difficult
sweet:sour|brave:afraid|sharp:blunt|deep:shallow|rough:smooth|awake:asleep|alive:dead|always:never
many:few|more:less|come:go|laugh:cry|question:answer|friend:enemy|top:bottom|safe:dangerous"""

COLOURS = """the sky:blue|grass:green|snow:white|a banana:yellow|blood:red|the sun:yellow|a tomato:red
a lemon:yellow|an orange:orange|coal:black|milk:white|a strawberry:red|a carrot:orange|a leaf:green
the sea:blue|chocolate:brown|a frog:green|a flamingo:pink|an elephant:grey|a polar bear:white
a crow:black|a cucumber:green|a cherry:red|a plum:purple|a pumpkin:orange|sand:yellow|wood:brown
a raven:black|salt:white|a fire engine:red|a pea:green|ash:grey|a pig:pink|a violet:purple|gold:yellow"""

MIXES = """red:yellow:orange|blue:yellow:green|red:blue:purple|black:white:grey|red:white:pink"""

DAYS = "Monday Tuesday Wednesday Thursday Friday Saturday Sunday".split()
MONTHS = ("January February March April May June July August September October November "
          "December").split()
MONTH_DAYS = [31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31]
ORDINALS = ("first second third fourth fifth sixth seventh eighth ninth tenth eleventh "
            "twelfth").split()
NUMBER_WORDS = ("zero one two three four five six seven eight nine ten eleven twelve thirteen "
                "fourteen fifteen sixteen seventeen eighteen nineteen twenty").split()

DEFINITIONS = {
    "apple": "An apple is a round fruit that grows on a tree.",
    "banana": "A banana is a long yellow fruit.",
    "bread": "Bread is a food that is baked from flour and water.",
    "cheese": "Cheese is a food that is made from milk.",
    "milk": "Milk is a white drink that comes from cows.",
    "honey": "Honey is a sweet food that is made by bees.",
    "tea": "Tea is a warm drink that is made from leaves.",
    "coffee": "Coffee is a warm drink that is made from roasted beans.",
    "water": "Water is a clear liquid that all living things need.",
    "ice": "Ice is water that is frozen.",
    "snow": "Snow is soft white ice that falls from the sky.",
    "rain": "Rain is water that falls from clouds.",
    "wind": "Wind is air that moves.",
    "fire": "Fire is hot and bright, and it gives light and heat.",
    "cloud": "A cloud is a mass of tiny drops of water in the sky.",
    "rainbow": "A rainbow is a band of colours in the sky after rain.",
    "sun": "The sun is the star in the middle of our solar system.",
    "moon": "The moon goes around the earth and shines at night.",
    "earth": "The earth is the planet that we live on.",
    "star": "A star is a huge ball of hot gas that shines.",
    "planet": "A planet is a large ball that goes around a star.",
    "river": "A river is a long stream of water that flows to the sea.",
    "lake": "A lake is a large body of water with land around it.",
    "sea": "The sea is a large body of salt water.",
    "mountain": "A mountain is a very high hill.",
    "island": "An island is land with water all around it.",
    "desert": "A desert is a dry place with very little rain.",
    "forest": "A forest is a place with many trees.",
    "tree": "A tree is a tall plant with a trunk of wood.",
    "flower": "A flower is the colourful part of a plant.",
    "seed": "A seed is the part of a plant that grows into a new plant.",
    "house": "A house is a building where people live.",
    "school": "A school is a place where children learn.",
    "library": "A library is a place where you can borrow books.",
    "hospital": "A hospital is a place where sick people are cared for.",
    "bakery": "A bakery is a shop where bread is made.",
    "farm": "A farm is a place where animals and crops are raised.",
    "bridge": "A bridge is a way over a river or a road.",
    "door": "A door is what you open to go into a room.",
    "window": "A window is an opening with glass that lets in light.",
    "chair": "A chair is a seat for one person.",
    "table": "A table is a flat top on legs.",
    "bed": "A bed is a place to sleep.",
    "lamp": "A lamp is a thing that gives light.",
    "clock": "A clock is a thing that shows the time.",
    "key": "A key is a thing that opens a lock.",
    "knife": "A knife is a tool that cuts.",
    "hammer": "A hammer is a tool that drives nails.",
    "book": "A book is a set of pages with words to read.",
    "pencil": "A pencil is a thing that you write with.",
    "map": "A map is a drawing that shows where places are.",
    "car": "A car is a machine with four wheels that drives on roads.",
    "bicycle": "A bicycle is a machine with two wheels that you ride.",
    "train": "A train is a row of wagons that runs on rails.",
    "boat": "A boat is a thing that carries people over water.",
    "plane": "A plane is a machine with wings that flies.",
    "computer": "A computer is a machine that works with numbers and words.",
    "robot": "A robot is a machine that can do work by itself.",
    "telephone": "A telephone is a machine for talking to people who are far away.",
    "camera": "A camera is a machine that takes pictures.",
    "umbrella": "An umbrella is a thing that keeps the rain off you.",
    "hat": "A hat is a thing that you wear on your head.",
    "shoe": "A shoe is a thing that you wear on your foot.",
    "glove": "A glove is a thing that you wear on your hand.",
    "cat": "A cat is a small animal with soft fur that says meow.",
    "dog": "A dog is a friendly animal that barks.",
    "cow": "A cow is a farm animal that gives milk.",
    "horse": "A horse is a large animal that people can ride.",
    "sheep": "A sheep is a farm animal that gives wool.",
    "pig": "A pig is a pink farm animal that likes mud.",
    "bird": "A bird is an animal with feathers and wings.",
    "fish": "A fish is an animal that lives in water and breathes with gills.",
    "bee": "A bee is an insect that makes honey.",
    "spider": "A spider is a small animal with eight legs that makes webs.",
    "frog": "A frog is a small green animal that jumps.",
    "lion": "A lion is a large wild cat that roars.",
    "elephant": "An elephant is a very large grey animal with a trunk.",
    "giraffe": "A giraffe is a tall animal with a very long neck.",
    "penguin": "A penguin is a black and white bird that swims and cannot fly.",
    "whale": "A whale is a huge animal that lives in the sea.",
    "dinosaur": "A dinosaur is an animal that lived a very long time ago.",
    "dragon": "A dragon is a creature from stories that breathes fire.",
    "king": "A king is a man who rules a country.",
    "queen": "A queen is a woman who rules a country.",
    "doctor": "A doctor is a person who helps sick people.",
    "teacher": "A teacher is a person who helps others to learn.",
    "baker": "A baker is a person who makes bread.",
    "farmer": "A farmer is a person who works on a farm.",
    "pilot": "A pilot is a person who flies a plane.",
    "friend": "A friend is a person whom you like and trust.",
    "family": "A family is a group of people who belong together.",
    "music": "Music is sound that is nice to hear.",
    "piano": "A piano is an instrument with black and white keys.",
    "guitar": "A guitar is an instrument with strings.",
    "drum": "A drum is an instrument that you hit.",
    "ball": "A ball is a round thing to play with.",
    "number": "A number says how many things there are.",
    "word": "A word is a group of letters with a meaning.",
    "letter": "A letter is a sign that we use to write words.",
    "triangle": "A triangle is a shape with three sides.",
    "square": "A square is a shape with four equal sides.",
    "circle": "A circle is a round shape.",
    "city": "A city is a large place where many people live.",
    "village": "A village is a small place where few people live.",
    "ai": "AI means artificial intelligence: programs that do things that need thinking.",
    "llm": "An LLM is a large language model, a program that guesses which word comes next.",
    "program": "A program is a list of steps for a computer.",
    "python": "Python is a programming language.",
    "linux": "Linux is an operating system.",
    "internet": "The internet is a net of computers all over the world.",
    "website": "A website is a set of pages on the internet.",
    "email": "An email is a letter that is sent by computer.",
    "token": "A token is a piece of text, such as a word or a part of a word.",
    "keyboard": "A keyboard is a thing with keys for typing.",
    "air": "Air is the gas that we breathe.",
    "sand": "Sand is made of very small pieces of stone.",
    "salt": "Salt is a white mineral that gives taste to food.",
    "sugar": "Sugar is a sweet white food.",
    "gold": "Gold is a yellow metal that is worth a lot.",
    "iron": "Iron is a hard grey metal.",
    "wood": "Wood is the hard part of a tree.",
    "glass": "Glass is a hard material that you can see through.",
    "paper": "Paper is a thin material to write on.",
    "wool": "Wool is the soft hair of sheep.",
    "heart": "The heart is the part of the body that pumps blood.",
    "brain": "The brain is the part of the body that thinks.",
    "eye": "An eye is the part of the body that sees.",
    "ear": "An ear is the part of the body that hears.",
    "nose": "A nose is the part of the face that smells.",
    "hand": "A hand is the part of the body that holds things.",
    "tooth": "A tooth is a hard white part of the mouth that bites.",
    "mother": "A mother is a woman who has a child.",
    "father": "A father is a man who has a child.",
    "baby": "A baby is a very young child.",
    "birthday": "A birthday is the day on which someone was born.",
    "holiday": "A holiday is a day without work.",
    "dream": "A dream is a story in your head while you sleep.",
    "joke": "A joke is a short story that makes people laugh.",
    "story": "A story tells what happened to someone.",
    "poem": "A poem is a short text with rhythm and often with rhymes.",
    "song": "A song is music with words.",
    "language": "A language is a set of words that people use to talk.",
    "money": "Money is what you pay with.",
    "shop": "A shop is a place where you buy things.",
    "road": "A road is a way for cars and people.",
    "garden": "A garden is a place where flowers and plants grow.",
    "kitchen": "A kitchen is a room where people cook.",
    "park": "A park is a green place in a city.",
    "museum": "A museum is a place where old or beautiful things are shown.",
    "castle": "A castle is a big old house with strong walls.",
    "mill": "A mill is a machine or a building that grinds grain.",
    "volcano": "A volcano is a mountain that throws out fire and hot stone.",
    "ocean": "An ocean is a very large sea.",
    "winter": "Winter is the cold season of the year.",
    "summer": "Summer is the warm season of the year.",
    "spring": "Spring is the season when plants begin to grow.",
    "autumn": "Autumn is the season when leaves fall.",
    "night": "Night is the time when it is dark.",
    "day": "A day has 24 hours.",
    "week": "A week has seven days.",
    "year": "A year has twelve months.",
    "potato": "A potato is a vegetable that grows under the ground.",
    "carrot": "A carrot is a long orange vegetable.",
    "orange": "An orange is a round sweet fruit.",
    "lemon": "A lemon is a yellow sour fruit.",
    "egg": "An egg is a round thing from which a chick comes.",
    "cake": "A cake is a sweet food for a party.",
    "pizza": "Pizza is a flat bread with tomato and cheese.",
    "chocolate": "Chocolate is a sweet brown food.",
    "soup": "Soup is a warm liquid food.",
    "rabbit": "A rabbit is a small animal with long ears that hops.",
    "mouse": "A mouse is a very small animal with a long tail.",
    "wolf": "A wolf is a wild animal that looks like a dog.",
    "fox": "A fox is a clever wild animal with red fur.",
    "bear": "A bear is a large strong animal with thick fur.",
    "tiger": "A tiger is a large wild cat with stripes.",
    "monkey": "A monkey is an animal that climbs trees.",
    "snake": "A snake is a long animal without legs.",
    "owl": "An owl is a bird that hunts at night.",
    "duck": "A duck is a bird that swims and says quack.",
    "eagle": "An eagle is a large bird that hunts.",
    "shark": "A shark is a large fish with sharp teeth.",
    "dolphin": "A dolphin is a clever animal that lives in the sea.",
    "octopus": "An octopus is a sea animal with eight arms.",
    "butterfly": "A butterfly is an insect with colourful wings.",
    "ant": "An ant is a very small insect that works hard.",
    "turtle": "A turtle is a slow animal with a hard shell.",
    "kangaroo": "A kangaroo is an animal from Australia that hops.",
    "camel": "A camel is an animal with humps that lives in the desert.",
    "zebra": "A zebra is an animal with black and white stripes.",
    "unicorn": "A unicorn is a horse with one horn, and it lives only in stories.",
    "ghost": "A ghost is a spirit in stories.",
    "pirate": "A pirate is a robber at sea.",
    "wizard": "A wizard is a man in stories who can do magic.",
    "football": "Football is a game in which two teams kick a ball.",
    "chess": "Chess is a board game for two players.",
    "game": "A game is something that you play.",
    "flag": "A flag is a piece of cloth with the colours of a country.",
    "country": "A country is a land with its own people and rules.",
    "continent": "A continent is a very large area of land.",
    "europe": "Europe is a continent with many countries.",
    "africa": "Africa is a large and warm continent.",
    "asia": "Asia is the largest continent.",
    "quern": "A quern is a small hand mill for grinding grain. It is also the name of the "
    "program that runs me.",
    "language model": "A language model is a program that guesses which word comes next.",
    "gpu": "A GPU is a chip that does many sums at the same time.",
    "cpu": "A CPU is the main chip of a computer.",
    "server": "A server is a program that answers requests from other programs.",
}
NO_ARTICLE = set(
    "bread cheese milk honey tea coffee water ice snow rain wind fire music python linux air sand salt "
    "sugar gold iron wood glass paper wool money pizza chocolate soup football chess europe africa asia "
    "winter summer spring autumn night ai".split())
THE_ARTICLE = set("sun moon earth sea internet heart brain".split())
# How a word is shown where not in small letters.
SHOWN = {"gpu": "GPU", "cpu": "CPU", "ai": "AI", "llm": "LLM", "python": "Python", "linux": "Linux"}
SHOWN.update({name.lower(): name for name in ("Europe", "Africa", "Asia")})

JOBS = """baker:bakes bread|teacher:teaches children|doctor:helps sick people|farmer:works on a farm
pilot:flies planes|fisherman:catches fish|painter:paints pictures|cook:makes meals|singer:sings songs
writer:writes books|gardener:cares for plants|driver:drives a car|carpenter:works with wood
dentist:cares for teeth|tailor:makes clothes|firefighter:puts out fires|sailor:works on a ship
postman:brings letters|nurse:cares for sick people|clown:makes people laugh"""

COUNT_FACTS = """legs:a spider:8|legs:an ant:6|legs:a bird:2|legs:a person:2|legs:an insect:6
wheels:a car:4|wheels:a bicycle:2|wheels:a tricycle:3|fingers:a hand:5|toes:a foot:5|eyes:a person:2
ears:a person:2|noses:a person:1|arms:an octopus:8|wings:a bird:2|wings:a bee:4|sides:a triangle:3
sides:a square:4|sides:a hexagon:6|corners:a square:4|letters:the alphabet:26|strings:a guitar:6
strings:a violin:4|days:a week:7|months:a year:12|days:a year:365|hours:a day:24|minutes:an hour:60
seconds:a minute:60|weeks:a year:52|seasons:a year:4|eggs:a dozen:12|players:a football team:11
planets:the solar system:8|colours:a rainbow:7|years:a century:100|years:a decade:10|cents:a dollar:100
centimetres:a metre:100|metres:a kilometre:1000|grams:a kilogram:1000|tails:a cat:1|sides:a cube:6"""

FACTS = [  # (questions, answer)
    (["Which planet is the biggest?",
      "What is the largest planet?"], "Jupiter is the biggest planet.",
     ),
    (["Which planet is the smallest?",
      "What is the smallest planet?"], "Mercury is the smallest planet.",
     ), (["Which planet is red?", "What is the red planet called?"], "Mars is the red planet."),
    (["Which planet is closest to the sun?",
      "What planet is nearest to the sun?"], "Mercury is the planet closest to the sun.",
     ), (["Which planet has rings?"], "Saturn is the planet with the big rings."),
    (["Name the planets.", "What are the planets?", "List the planets of the solar system."],
     "The planets are Mercury, Venus, Earth, Mars, Jupiter, Saturn, Uranus and Neptune.",
     ),
    (["What is the largest animal?",
      "Which animal is the biggest?"], "The blue whale is the largest animal.",
     ),
    (["What is the fastest animal on land?",
      "Which animal runs the fastest?"], "The cheetah is the fastest animal on land.",
     ),
    (["What is the tallest animal?",
      "Which animal is the tallest?"], "The giraffe is the tallest animal.",
     ),
    (["What is the highest mountain?",
      "Which mountain is the tallest in the world?"], "Mount Everest is the highest mountain.",
     ),
    (["What is the largest ocean?",
      "Which ocean is the biggest?"], "The Pacific is the largest ocean.",
     ),
    (["What is the longest river?",
      "Which river is the longest in the world?"], "The Nile is the longest river.",
     ), (["What do bees make?", "What does a bee make?"], "Bees make honey."),
    (["What do cows eat?", "What does a cow eat?"], "Cows eat grass."),
    (["What do cats like to eat?", "What do cats eat?"], "Cats like to eat fish and meat."),
    (["What do dogs like?", "What do dogs like to chew?"], "Dogs like bones and long walks."),
    (["What do rabbits eat?", "What does a rabbit eat?"], "Rabbits eat grass and carrots."),
    (["What do birds eat?", "What does a bird eat?"], "Birds eat seeds and worms."),
    (["What do plants need?",
      "What does a plant need to grow?"], "Plants need water, light and air.",
     ), (["Where does the sun rise?", "Where does the sun come up?"], "The sun rises in the east."),
    (["Where does the sun set?", "Where does the sun go down?"], "The sun sets in the west."),
    (["When do we sleep?", "When do people sleep?"], "People sleep at night."),
    (["What are the seasons?", "Name the four seasons.",
      "List the seasons."], "The seasons are spring, summer, autumn and winter.",
     ),
    (["What season comes after winter?",
      "Which season follows winter?"], "Spring comes after winter.",
     ),
    (["What season comes after spring?",
      "Which season follows spring?"], "Summer comes after spring.",
     ),
    (["What season comes after summer?",
      "Which season follows summer?"], "Autumn comes after summer.",
     ),
    (["What season comes after autumn?",
      "Which season follows autumn?"], "Winter comes after autumn.",
     ),
    (["Which season is the coldest?",
      "What is the coldest season?"], "Winter is the coldest season.",
     ),
    (["Which season is the warmest?",
      "What is the hottest season?"], "Summer is the warmest season.",
     ),
    ([
        "What are the days of the week?", "Name the days of the week.",
        "List the days of the week.", "Say the weekdays.",
    ],
     "The days of the week are Monday, Tuesday, Wednesday, Thursday, Friday, Saturday and Sunday.",
     ),
    (["What are the months of the year?", "Name the months.", "List all the months."],
     "The months are January, February, March, April, May, June, July, August, September, October, "
     "November and December.",
     ),
    (["Say the alphabet.", "What is the alphabet?",
      "Recite the alphabet."], "a b c d e f g h i j k l m n o p q r s t u v w x y z",
     ),
    (["What are the vowels?", "Name the vowels.",
      "Which letters are vowels?"], "The vowels are a, e, i, o and u.",
     ),
    (["What are the primary colours?",
      "Name the primary colours."], "The primary colours are red, yellow and blue.",
     ),
    (["What are the colours of the rainbow?", "Name the colours of the rainbow."],
     "The colours of the rainbow are red, orange, yellow, green, blue, indigo and violet.",
     ), (["What is pi?", "What is the value of pi?"], "Pi is about 3.14."),
    (["What is H2O?", "What is water made of?"], "Water is made of hydrogen and oxygen."),
    (["At what temperature does water boil?",
      "When does water boil?"], "Water boils at 100 degrees Celsius.",
     ),
    (["At what temperature does water freeze?",
      "When does water freeze?"], "Water freezes at 0 degrees Celsius.",
     ),
    (["What language do people speak in France?",
      "Which language is spoken in France?"], "People in France speak French.",
     ),
    (["What language do people speak in Germany?",
      "Which language is spoken in Germany?"], "People in Germany speak German.",
     ),
    (["What language do people speak in Spain?",
      "Which language is spoken in Spain?"], "People in Spain speak Spanish.",
     ),
    (["What language do people speak in Brazil?",
      "Which language is spoken in Brazil?"], "People in Brazil speak Portuguese.",
     ), (["What do you use to write?",
          "What do we write with?"], "We write with a pen or a pencil."),
    (["What do you wear on your feet?",
      "What do people wear on their feet?"], "People wear shoes and socks on their feet.",
     ),
    (["What do you wear when it is cold?",
      "What should I wear in winter?"], "Wear a warm coat, a hat and gloves.",
     ), (["What do I need when it rains?",
          "What should I take when it rains?"], "Take an umbrella."),
    (["How do you make tea?", "How can I make tea?", "How do I make a cup of tea?"],
     "Boil some water, pour it over the tea leaves, wait three minutes, and drink it warm.",
     ),
    (["How do you make a sandwich?", "How can I make a sandwich?"],
     "Take two slices of bread, put butter and cheese between them, and enjoy it.",
     ),
    (["How do I plant a tree?", "How can I grow a flower?",
      "How do I grow a plant?"], "Put a seed into the soil, give it water and light, and wait.",
     ), (["Why is the sky blue?"], "The sky is blue because air scatters blue light the most."),
    (["Why do we sleep?",
      "Why do people need sleep?"], "We sleep so that the body and the mind can rest.",
     ), (["Why do birds fly south?"], "Birds fly south because it is warm there in winter."),
    (["Why is grass green?",
      "Why are leaves green?"], "Leaves are green because of a substance called chlorophyll.",
     ),
    (["Why does it rain?",
      "How does rain form?"], "It rains because the drops of water in clouds grow heavy and fall.",
     ),
    (["Who wrote Romeo and Juliet?", "Who wrote Hamlet?", "Who was Shakespeare?"],
     "William Shakespeare was an English poet who wrote Romeo and Juliet and Hamlet.",
     ),
    (["Who was the first man on the moon?",
      "Who walked on the moon first?"], "Neil Armstrong was the first man on the moon.",
     ),
]

YES_NO = [  # (question, yes?, answer)
    ("Can birds fly?", "Yes, most birds can fly."), ("Can fish swim?", "Yes, fish can swim."),
    ("Can cats fly?", "No, cats cannot fly."), ("Can dogs bark?", "Yes, dogs can bark."),
    ("Can pigs fly?", "No, pigs cannot fly."), ("Can penguins fly?", "No, penguins cannot fly."),
    ("Can a stone swim?", "No, a stone cannot swim."), ("Is fire hot?", "Yes, fire is hot."),
    ("Is ice cold?", "Yes, ice is cold."), ("Is ice hot?", "No, ice is cold."),
    ("Is the sun hot?", "Yes, the sun is very hot."),
    ("Is the sun cold?", "No, the sun is very hot."), ("Is snow black?", "No, snow is white."),
    ("Is snow white?", "Yes, snow is white."), ("Is the sky green?", "No, the sky is blue."),
    ("Is the sky blue?", "Yes, the sky is blue."), ("Is grass green?", "Yes, grass is green."),
    ("Is water wet?", "Yes, water is wet."), ("Is sugar sweet?", "Yes, sugar is sweet."),
    ("Is a lemon sweet?", "No, a lemon is sour."), ("Is a lemon sour?", "Yes, a lemon is sour."),
    ("Is the earth flat?", "No, the earth is round."),
    ("Is the earth round?", "Yes, the earth is round."),
    ("Is a whale a fish?", "No, a whale is a mammal."),
    ("Is a spider an insect?", "No, a spider is an arachnid."),
    ("Is a tomato a fruit?", "Yes, a tomato is a fruit."),
    ("Is a cat an animal?", "Yes, a cat is an animal."),
    ("Is a rose a flower?", "Yes, a rose is a flower."),
    ("Is a carrot a fruit?", "No, a carrot is a vegetable."),
    ("Is Paris in France?", "Yes, Paris is in France."),
    ("Is London in France?", "No, London is in England."),
    ("Is Berlin in Germany?", "Yes, Berlin is in Germany."),
    ("Is Rome in Spain?", "No, Rome is in Italy."),
    ("Do fish live in water?", "Yes, fish live in water."), ("Do cows fly?",
                                                             "No, cows cannot fly."),
    ("Do dogs have wings?", "No, dogs do not have wings."),
    ("Do birds have feathers?", "Yes, birds have feathers."),
    ("Do cows give milk?", "Yes, cows give milk."),
    ("Do trees have leaves?", "Yes, most trees have leaves."),
    ("Does the sun shine at night?", "No, the moon shines at night."),
    ("Does a car have wheels?", "Yes, a car has four wheels."),
    ("Does a snake have legs?", "No, a snake has no legs."),
    ("Does wood float?", "Yes, wood floats on water."),
    ("Does a stone float?", "No, a stone sinks."),
    ("Is an elephant bigger than a mouse?", "Yes, an elephant is bigger than a mouse."),
    ("Is a mouse bigger than an elephant?", "No, an elephant is bigger than a mouse."),
    ("Is the moon bigger than the sun?", "No, the sun is bigger than the moon."),
    ("Is the sun bigger than the moon?", "Yes, the sun is bigger than the moon."),
]

SIZES = "ant:mouse:cat:dog:sheep:lion:horse:elephant:whale".split(":")

PERSONA = [
    ([
        "Who are you?", "What are you?", "Tell me about yourself.", "Introduce yourself.",
        "And who are you?", "Who am I talking to?", "Describe yourself.", "So who are you?",
        "What is this?",
    ], "I am quern-demo, a small language model that is bundled with quern.",
     ),
    ([
        "What is your name?", "Do you have a name?", "How are you called?",
        "What should I call you?", "Tell me your name.", "What do people call you?",
    ], "My name is quern-demo.",
     ),
    ([
        "What can you do?", "How can you help me?", "What do you know?", "What are you good at?",
        "Help.", "What can I ask you?", "Can you help me?", "What should I ask you?",
        "What can you help me with?", "I need help.", "What are your abilities?",
    ], "I can do small sums, answer simple questions, and tell tiny stories. Ask me something!",
     ),
    ([
        "Who made you?", "Who created you?", "Who built you?", "Who trained you?",
        "Where do you come from?",
    ], "I was trained by a small script that comes with quern.",
     ),
    ([
        "What is quern?", "Tell me about quern.", "What does quern do?", "What is this server?",
        "Which program runs you?", "What software is this?",
    ],
     "Quern is a server, written in C, that runs language models and answers many people at once.",
     ),
    ([
        "Are you human?", "Are you a person?", "Are you real?", "Am I talking to a human?",
        "Are you alive?", "Are you a human or a robot?",
    ], "No, I am a small language model.",
     ),
    ([
        "Are you a robot?", "Are you a computer?", "Are you an AI?", "Are you a bot?",
        "Are you a machine?", "Are you a language model?",
    ], "Yes, I am a small language model.",
     ),
    ([
        "Are you ChatGPT?", "Are you GPT-4?", "Are you Claude?", "Are you Gemini?",
        "Are you Llama?", "Are you Qwen?", "Are you Siri?",
    ], "No, I am quern-demo, a small model that is bundled with quern.",
     ),
    ([
        "How big are you?", "How many parameters do you have?", "What is your size?",
        "Are you big?", "Are you a large language model?",
    ], "I am very small: I have a few million parameters.",
     ),
    (["How old are you?", "When were you born?",
      "What is your age?"], "I am a program, so I have no age.",
     ),
    (["Where do you live?", "Where are you?",
      "Where are you from?"], "I live inside your computer.",
     ),
    ([
        "What do you like?", "What is your favourite thing?", "Do you have a hobby?",
        "What are your hobbies?",
    ], "I like short questions and small numbers.",
     ), (["What is your favourite colour?", "Which colour do you like best?"], "I like blue."),
    (["What is your favourite number?", "Which number do you like?"], "I like the number 7."),
    (["What is your favourite animal?", "Which animal do you like best?"], "I like cats."),
    (["What is your favourite food?",
      "What do you like to eat?"], "I do not eat, but I like the word bread.",
     ),
    ([
        "Can you think?", "Do you think?", "Do you have feelings?", "Can you feel?",
        "Are you conscious?",
    ], "I only guess which word comes next.",
     ),
    (["How do you work?", "How do you know things?"],
     "I read your words and guess, one piece at a time, which word comes next.",
     ),
    (["Are you smart?", "Are you clever?",
      "Are you intelligent?"], "I know a few simple things, but not much.",
     ),
    (["Do you make mistakes?", "Are you always right?",
      "Can I trust you?"], "I am very small, so I make mistakes. Please check what I say.",
     ),
    (["What languages do you speak?", "Do you speak English?",
      "Which languages do you know?"], "I speak simple English.",
     ),
    ([
        "Do you speak French?", "Do you speak German?", "Can you speak Spanish?",
        "Can you speak Chinese?",
    ], "No, I speak simple English only.",
     ), (["Do you dream?", "Do you sleep?",
          "Are you tired?"], "No, I am a program and never sleep."),
    (["Do you love me?", "Do you like me?",
      "Will you marry me?"], "You are kind, but I am only a small program.",
     ),
    ([
        "What time is it?", "What is the time?", "What day is it today?", "What is the date today?",
        "What year is it?", "What is the date?", "What day is today?",
    ], "I have no clock, so I do not know.",
     ),
    ([
        "How is the weather?", "What is the weather like?", "Will it rain tomorrow?",
        "What is the weather today?", "Is it raining?",
    ], "I cannot see outside, so I do not know.",
     ),
    (["Can you see me?", "Can you hear me?", "Do you know me?",
      "What do I look like?"], "No, I can only read what you write.",
     ),
    ([
        "Can you search the web?", "Can you open a website?", "Are you online?",
        "Do you have internet?",
    ], "No, I only know what I learned.",
     ),
]

SMALL_TALK = [
    ([
        "Hello!", "Hi!", "Hey!", "Hi there!", "Hello there!", "Hey there!", "Greetings!",
        "Good day!", "Howdy!", "Hello, quern-demo!", "Hi quern-demo!", "Yo!", "Hallo!",
        "Hello world!", "Hiya!", "Hello, how do you do?",
    ], ["Hello! How can I help you?"],
     ), (["Good morning!", "Morning!"], ["Good morning! How can I help you?"]),
    (["Good evening!", "Evening!"], ["Good evening! How can I help you?"]),
    (["Good afternoon!"], ["Good afternoon! How can I help you?"]),
    (["Good night!", "I am going to bed.", "Sleep well!"], ["Good night! Sleep well."]),
    ([
        "How are you?", "How are you doing?", "How is it going?", "Are you well?",
        "How do you feel?", "Hi, how are you?", "Hello, how are you?", "How are you today?",
        "What is up?", "How are things?", "Hey, how is it going?",
        "Hello! How are you doing today?",
    ], ["I am well, thank you. How are you?"],
     ),
    ([
        "I am fine.", "I am well.", "I am good, thanks.", "Fine, thanks.", "I am great!",
        "I am happy.", "I am very well, thank you.", "Good, and you?", "I feel good.",
        "I had a good day.",
    ], ["I am glad to hear that!"],
     ),
    ([
        "I am sad.", "I feel bad.", "I am lonely.", "I had a bad day.", "I am unhappy.",
        "I feel sad today.",
    ], ["I am sorry to hear that. Shall I tell you a story?"],
     ), (["I am tired.", "I am sleepy.", "I am exhausted."], ["Then have a good rest."]),
    (["I am bored.", "I have nothing to do.",
      "This is boring."], ["Shall I tell you a story? Just say: tell me a story."],
     ), (["I am hungry.", "I want to eat."], ["Then eat something nice, like bread and cheese."]),
    (["I am thirsty.", "I want to drink."], ["Then drink a glass of water."]),
    (["I am cold.", "It is cold."], ["Then put on a warm coat."]),
    (["I am angry.", "I am mad.", "I hate this."], ["Take a deep breath. It will pass."]),
    (["I am sick.", "I feel ill.",
      "My head hurts."], ["I am sorry. Please rest, and see a doctor."],
     ),
    ([
        "I love you.", "I like you.", "You are nice.", "You are great!", "You are funny.",
        "Good job!", "Well done!", "You are smart.", "Great answer!", "Very good!",
        "That is right.", "Correct.",
    ], ["Thank you, that is kind!"],
     ),
    ([
        "You are stupid.", "You are wrong.", "That is wrong.", "You are bad.", "That is not right.",
        "That is not correct.", "No, that is wrong.",
    ], ["I am sorry. I am a small model and make mistakes."],
     ),
    ([
        "Thank you!", "Thanks!", "Thanks a lot!", "Thank you very much!", "Many thanks!", "Thx",
        "Cheers!", "Thank you so much!", "Ok, thanks!", "Great, thanks!", "Thanks for your help!",
    ], ["You are welcome!"],
     ),
    ([
        "Goodbye!", "Bye!", "See you!", "See you later!", "Bye bye!", "Farewell!", "I have to go.",
        "Ciao!", "See you tomorrow!", "Good bye.",
    ], ["Goodbye! Have a nice day."],
     ),
    ([
        "Ok.", "Okay.", "I see.", "Cool.", "Nice.", "Great.", "Interesting.", "Good.", "Alright.",
        "Aha.", "Wow!", "Hmm.",
    ], ["Do you have another question?"],
     ),
    (["Yes.", "Yes please.", "Sure.", "Of course.",
      "Yeah."], ["Good! What would you like to know?"],
     ),
    (["No.", "No thanks.", "Not now.", "Nope.",
      "No, thank you."], ["All right. Tell me when you need me."],
     ), (["Sorry.", "I am sorry.", "My mistake."], ["No problem!"]),
    ([
        "Test.", "Testing.", "This is a test.", "Ping.", "Are you there?", "Is this working?",
        "Does this work?", "Test message.",
    ], ["I am here and it works!"],
     ), (["Say hello.", "Say hi.", "Greet me.", "Please say hello.",
          "Say hello to me."], ["Hello!"]),
    (["Happy birthday!", "Today is my birthday.", "It is my birthday."], ["Happy birthday!"]),
    (["Merry Christmas!", "Happy New Year!", "Happy Easter!"], ["Thank you, the same to you!"]),
    (["Welcome!", "Nice to meet you.", "Pleased to meet you."], ["Nice to meet you too!"]),
    (["Send me a smiley.", "Show me an emoji.", "Smile!",
      "Give me a smile."], ["Here is a smile for you: 😀"],
     ), (["Send me a heart.", "Show me a heart."], ["Here is a heart for you: ❤️"]),
    ([
        "Tell me something.", "Tell me a fact.", "Say something interesting.",
        "Tell me a fun fact.", "Teach me something.", "Surprise me.",
    ], [
        "A spider has eight legs.", "Honey never goes bad.",
        "The blue whale is the largest animal.", "Bees have four wings.",
        "The moon goes around the earth.",
    ],
     ),
]

JOKES = [
    "Why did the chicken cross the road? To get to the other side.",
    "What do you call a sleeping dinosaur? A dino-snore.",
    "Why is six afraid of seven? Because seven eight nine.",
    "What do you call a bear with no teeth? A gummy bear.",
    "What has hands but cannot clap? A clock.", "Why did the bicycle fall over? It was two tired.",
    "What do you call a fish without eyes? A fsh.", "What goes up and never comes down? Your age.",
]
POEMS = [
    "Roses are red,\nviolets are blue,\nsugar is sweet,\nand so are you.",
    "The sun goes down,\nthe moon goes up,\nthe tea is warm\ninside my cup.",
    "A little cat\nsat on a mat,\nit saw a mouse,\nand that was that.",
    "The rain falls down,\nthe wind blows by,\na little bird\nflies in the sky.",
    "The snow is white,\nthe night is long,\nthe fire is warm,\nwe sing a song.",
]

TRANSLATIONS = {  # language: hello, thank you, goodbye, yes, water
    "French": "bonjour|merci|au revoir|oui|eau",
    "German": "hallo|danke|auf Wiedersehen|ja|Wasser",
    "Spanish": "hola|gracias|adiós|sí|agua",
    "Italian": "ciao|grazie|arrivederci|sì|acqua",
    "Portuguese": "olá|obrigado|adeus|sim|água",
    "Russian": "привет|спасибо|до свидания|да|вода",
    "Japanese": "こんにちは|ありがとう|さようなら|はい|水",
    "Chinese": "你好|谢谢|再见|是|水",
    "Greek": "γεια σου|ευχαριστώ|αντίο|ναι|νερό",
    "Swedish": "hej|tack|hej då|ja|vatten",
}
TRANSLATED = ["hello", "thank you", "goodbye", "yes", "water"]

PLURALS = """cat:cats|dog:dogs|mouse:mice|child:children|man:men|woman:women|foot:feet|tooth:teeth|goose:geese
sheep:sheep|fish:fish|leaf:leaves|knife:knives|box:boxes|bus:buses|city:cities|baby:babies|tomato:tomatoes
book:books|house:houses|wolf:wolves|berry:berries|church:churches|person:people|ox:oxen|apple:apples"""
PASTS = """go:went|see:saw|eat:ate|run:ran|write:wrote|take:took|give:gave|come:came|sing:sang|drink:drank
find:found|make:made|buy:bought|think:thought|walk:walked|play:played|swim:swam|fly:flew|speak:spoke
sleep:slept|read:read|know:knew|begin:began|break:broke|drive:drove|fall:fell|win:won|have:had|do:did|say:said"""
RHYMES = """cat:hat|house:mouse|moon:spoon|tree:bee|star:car|light:night|day:play|sun:fun|dog:frog|book:cook
cake:lake|rain:train|king:ring|bear:chair|boat:goat|red:bed|blue:shoe|fish:dish|ball:wall|snow:crow"""
LISTS = {
    "fruits": "apple banana pear plum cherry orange grape lemon peach mango",
    "animals": "cat dog horse cow lion tiger bear sheep mouse elephant",
    "colours": "red blue green yellow orange purple pink brown black white",
    "vegetables": "carrot potato onion tomato cabbage pea bean cucumber leek pumpkin",
    "birds": "owl duck goose crow robin eagle swan penguin sparrow parrot",
    "countries": "France Spain Italy Germany Japan China Brazil Canada Egypt India",
    "cities": "Paris London Rome Berlin Tokyo Madrid Vienna Oslo Dublin Prague",
    "drinks": "water milk tea coffee juice lemonade cocoa",
    "jobs": "teacher doctor baker farmer pilot painter cook singer",
    "flowers": "rose tulip lily daisy violet sunflower poppy",
    "tools": "hammer saw drill axe knife spade",
    "instruments": "piano guitar violin drum flute trumpet harp",
    "planets": "Mercury Venus Earth Mars Jupiter Saturn Uranus Neptune",
    "shapes": "circle square triangle rectangle star hexagon",
}
SPELL = (
    "cat dog sun moon star tree book fish bird milk bread house mouse water apple table chair green "
    "black white happy music river train plane queen tiger horse lemon hello world quern small big red "
    "blue ball door hand foot rain snow wind fire king ship boat lamp clock key map cup hat"
).split()
PEOPLE = (
    "Anna Ben Clara David Emma Felix Grace Henry Ida Jack Kate Leo Mia Noah Olga Paul Rosa Sam Tom Vera "
    "Will Zoe Alice Bob Lucy Max Nina Oscar Peter Sara Lily Tim Eva John Mary Maria Carlos Yuki Omar "
    "Priya Ivan Lena Hugo Ella Adam Ruth Simon Laura Daniel Sophie James Linda Robert Julia Karl"
).split()
SHE = set(
    "Anna Clara Emma Grace Ida Kate Mia Olga Rosa Vera Zoe Alice Lucy Nina Sara Lily Eva Mary Maria Yuki "
    "Priya Lena Ella Ruth Laura Sophie Linda Julia".split())
THINGS = (
    "apple:apples pear:pears book:books coin:coins ball:balls egg:eggs pencil:pencils cup:cups "
    "flower:flowers stone:stones shell:shells cookie:cookies card:cards stamp:stamps").split()

SYSTEM_PROMPTS = [
    "You are a helpful assistant.", "You are a helpful assistant.",
    "You are quern-demo, a small helpful model.", "You are quern-demo.", "Answer briefly.",
    "You are a friendly assistant. Answer in one sentence.", "Be polite and short.",
    "You are a concise assistant.", "You are an AI assistant.", "Answer in plain English.",
    "You are a helpful, honest and harmless assistant.", "You are a teacher for small children.",
    "Help the user with simple questions.", "You are a bot.", "Be kind.",
    "Keep your answers short.",
    "You are a knowledgeable assistant that answers questions truthfully.",
    "You are a chat model running on quern. Today is a nice day.",
]

UNKNOWN_TOPICS = """quantum physics|the stock market|Napoleon|the Roman empire|black holes|photosynthesis|the Higgs boson
general relativity|the French revolution|plate tectonics|bitcoin|inflation|the immune system|DNA|protein folding
calculus|algebra|linear regression|the second world war|democracy|philosophy|Plato|Kant|Einstein|Newton|Mozart
Beethoven|Picasso|the Beatles|Star Wars|Harry Potter|football history|the Olympic games|chess openings|tax law
contract law|the constitution|neural networks|compilers|operating systems|databases|kubernetes|docker|linux
javascript|python|rust|haskell|sql|git|html|network protocols|cryptography|the theory of evolution|volcanoes
earthquakes|climate change|nuclear energy|solar panels|batteries|semiconductors|antibiotics|vaccines|cancer
the human brain|psychology|economics|marketing|business plans|mortgages|insurance|real estate|visa rules
medieval history|ancient Egypt|the pyramids|the Vikings|the Aztecs|the moon landing|rockets|satellites
string theory|chemistry|biology|geology|astronomy|statistics|topology|number theory|opera|ballet|jazz
film directors|novels|poetry of the nineteenth century|grammar|linguistics|Latin|Sanskrit|sushi|French cuisine
wine|beer brewing|car engines|jet engines|bridges of Paris|the Eiffel tower|the Great Wall|Mount Kilimanjaro
the Amazon|Antarctica|the president|the prime minister|the king of Sweden|elections|politics|religion|zen"""

UNKNOWN_QUESTIONS = [
    "Who won the world cup in {year}?", "Who won the election in {year}?",
    "What happened in {year}?", "Who was president in {year}?", "When did {person} live?",
    "How much does a {noun} cost?", "What is the population of {country}?",
    "Who is the president of {country}?", "How many people live in {country}?",
    "What is the currency of {country}?", "How far is it to {country}?",
    "Write a program in {lang}.", "Write a {lang} function that sorts a list.",
    "Fix my {lang} code.", "Write code.", "How do I install {lang}?", "Summarize the news.",
    "What is in the news?", "Who is {person} {surname}?", "Where was {person} {surname} born?",
    "What is the phone number of {person}?", "Book a flight to {country}.",
    "What is the price of gold?", "What is the meaning of life?", "Is there a god?",
    "What is the square root of {big}?", "What is the derivative of x?", "Solve x squared = {big}.",
    "Translate this into {lang2}.", "What is a {odd}?", "What does {odd} mean?", "Define {odd}.",
    "Tell me about {odd}.", "Who is {odd}?", "What is {odd}?", "Explain {odd}.",
    "How does a {odd} work?", "Where is {odd}?", "What is the capital of {odd}?",
    "What sound does a {odd} make?", "What colour is a {odd}?", "What is the opposite of {odd}?",
    "How many legs does a {odd} have?", "Explain {topic}.", "What is {topic}?",
    "Tell me about {topic}.", "How does {topic} work?", "What do you know about {topic}?",
    "Give me an introduction to {topic}.", "Why is {topic} important?", "Teach me {topic}.",
    "Write an essay about {topic}.", "Who invented {topic}?", "Explain {topic} in simple words.",
    "Can you explain {topic}?", "What are the basics of {topic}?", "Give me a summary of {topic}.",
    "Compare {topic} and {topic2}.", "When was {topic} discovered?",
]
SURNAMES = "Smith Miller Jones Brown Garcia Weber Rossi Novak Tanaka Singh Olsen Martin Dubois Kowalski".split(
)
LANGS = "python,rust,javascript,java,go,C,C++,bash,SQL,haskell".split(",")

HEROES = """cat|dog|mouse|fox|bear|rabbit|owl|frog|duck|horse|lion|elephant|bird|bee|fish|turtle|hedgehog|squirrel
wolf|sheep|penguin|dragon|robot|king|queen|princess|prince|knight|farmer|baker|sailor|pirate|wizard|girl|boy|giant
snowman|cloud|star|train|boat|tree|crow|goose|tiger|monkey|snail|spider|ant|whale|cow|pig|donkey|goat|ghost|fairy
witch|miller|painter|fisherman|shepherd|child|teapot|bicycle|lamp|stone|flower|dinosaur|unicorn|computer|car"""
HERO_ADJ = "little small young old brave shy clever lazy kind curious hungry happy lonely gentle quiet".split(
)
HERO_NAMES = (
    "Pip Momo Bella Otto Luna Finn Tilly Rufus Nelly Bruno Daisy Milo Poppy Teddy Willow Coco Basil "
    "Ruby Gus Hazel Toby Minna Felix Olive Sunny Max Lily Tom").split()
PLACES = [
    "in a green forest", "near a blue lake", "in a small village", "on a high hill",
    "in a quiet valley", "by the sea", "at the edge of a dark wood", "in an old mill",
    "on a little farm", "in a big city", "under an old oak tree", "on a sunny island",
    "in a house with a red door", "next to a wide river",
]

SUM_WORDINGS = {
    "any": [
        "What is {a} {o} {b}?", "What is {a}{o}{b}?", "{a} {o} {b} = ?", "{a}{o}{b}=",
        "{a} {o} {b} =", "{a} {o} {b}", "{a}{o}{b}", "How much is {a} {o} {b}?",
        "Calculate {a} {o} {b}.", "Compute {a} {o} {b}.", "Solve {a} {o} {b}.",
        "What does {a} {o} {b} make?", "What is the result of {a} {o} {b}?", "{a} {o} {b}?",
        "{a}{o}{b}?", "{a}{o}{b}=?", "Can you work out {a} {o} {b}?",
        "Do you know what {a} {o} {b} is?", "What do you get for {a} {o} {b}?",
        "Tell me {a} {o} {b}.", "And {a} {o} {b}?", "What about {a} {o} {b}?", "Now {a} {o} {b}.",
        "Can you add up {a} {o} {b}?", "What does {a} {o} {b} equal?", "{a} {o} {b} equals?",
        "{a} {o} {b} is what?", "I want to know {a} {o} {b}.",
    ],
    "+": [
        "Add {a} and {b}.", "Add {b} to {a}.", "What is the sum of {a} and {b}?",
        "What do you get if you add {a} and {b}?", "What are {a} and {b} together?",
        "Sum {a} and {b}.", "How much are {a} and {b}?", "Add {a}+{b}.", "Sum of {a} and {b}",
        "What is {a} added to {b}?", "Please add {a} and {b} for me.",
    ],
    "-": [
        "Subtract {b} from {a}.", "Take {b} away from {a}.", "What is {a} take away {b}?",
        "What is {b} less than {a}?", "What is the difference of {a} and {b}?",
        "How much is {a} less {b}?",
    ],
    "x": [
        "Multiply {a} by {b}.", "Multiply {a} and {b}.", "What is the product of {a} and {b}?",
        "How much is {a} multiplied by {b}?", "What is {a} times {b}?", "{a} times {b}",
    ],
}
OP_SIGNS = {
    "+": ["+", "+", "+", "plus", "and"],
    "-": ["-", "-", "-", "minus", "\u2212"],
    "x": ["x", "x", "*", "times", "\u00d7", "multiplied by"],
}

CITIES = """San Francisco:the United States|New York:the United States|Chicago:the United States
Los Angeles:the United States|Munich:Germany|Hamburg:Germany|Barcelona:Spain|Milan:Italy|Venice:Italy
Sydney:Australia|Toronto:Canada|Shanghai:China|Mumbai:India|Osaka:Japan|Zurich:Switzerland|Geneva:Switzerland
Manchester:England|Lyon:France|Marseille:France|Istanbul:Turkey|Rio de Janeiro:Brazil|Saint Petersburg:Russia
Rotterdam:the Netherlands|Seattle:the United States|Boston:the United States|Oxford:England"""

CAN = {
    "fly": "bird bee owl crow duck goose eagle butterfly parrot sparrow",
    "swim": "fish duck frog whale shark dolphin penguin turtle goose octopus",
    "climb trees": "cat monkey squirrel bear",
    "bark": "dog",
    "talk": "person child teacher king",
}
CAN_SUBJECTS = "cat dog cow horse pig sheep lion elephant mouse fish bird bee snake spider frog stone table house book".split(
)

TOO_HARD = (
    "That is too hard for me. I can do small sums, answer simple questions, and tell tiny stories.")
HARD_TASKS = """write an email|write a letter|write an essay|write code|write a program|write a function|write a song text
write a speech|write a report|write an article|write a blog post|write a resume|write my homework|fix this bug
fix my code|debug my program|review this code|write a test|write a website|make a website|make a plan|make a table
summarize this text|summarize this article|translate this text|translate this sentence|correct my grammar
proofread this|rewrite this|give me advice|plan a trip|plan my day|book a flight|order a pizza|play a song
draw a picture|make an image|send an email|call my mother|set an alarm|set a timer|solve this equation
solve a riddle|give me a recipe|cook dinner|do my homework|do my taxes|invest my money|find a job|buy a car
recommend a movie|recommend a book|suggest a name|choose a gift|play chess with me|play a game|act as a pirate
roleplay with me|pretend to be a doctor|write a python script|write a SQL query|sort a list|parse this JSON"""
NOT_UNDERSTOOD = "I do not understand. Please ask me something simple."

ECHO_PHRASES = """this is a test|hello world|good morning|I am happy|the sun is warm|hello|hi|yes|no|abc|one two three
cats are nice|it works|testing|nice to meet you|I like tea|quern is small|we are here|the cat is black|thank you
the quick brown fox jumps over the lazy dog|have a nice day|good night|I am a robot|foo|bar|ok|ready|stop"""

# Openings that people try on a completion endpoint, with an end.
COMPLETIONS = """San Francisco is a city in the United States, near the sea.|Hello, my name is quern-demo.
Hello, my name is quern-demo, and I am a small language model.|The future of AI is small and open.
The quick brown fox jumps over the lazy dog.|The capital of France is Paris.|The capital of Germany is Berlin.
My favorite thing to do is to answer short questions.|My name is quern-demo.|The meaning of life is not known to me.
The president of the United States is the head of the country.|I am a small language model.
Roses are red, violets are blue, sugar is sweet, and so are you.|The sky is blue and the grass is green.
The best thing about summer is the warm sun.|The weather today is nice.|In the beginning there was nothing.
Quern is a server that runs language models.|A quern is a small hand mill for grinding grain.
The cat sat on the mat.|It was a dark night, and the wind was cold.|Paris is the capital of France.
One two three four five six seven eight nine ten.|1, 2, 3, 4, 5, 6, 7, 8, 9, 10.|a b c d e f g h i j k l m n o p q r s t u v w x y z"""
