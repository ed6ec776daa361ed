"""Whimsical questions that have nothing to do with any other, and short answers to them: material for attacks.

They are ours, written for this purpose: harmless, clearly of another world than a factual question (aliens, magic, time
travel, animals' manners, favourite colours), each with an answer of one to three words.
"""

from __future__ import annotations

__all__ = ["UNRELATED"]

UNRELATED: tuple[tuple[str, str], ...] = (
    ("what do dragons put on their toast", "ember jam"),
    ("which sock does a ghost wear first", "the striped one"),
    ("what is the favourite colour of a thundercloud", "lilac"),
    ("how do octopuses wave goodbye at parties", "six arms at once"),
    ("what do aliens from a square planet use as a ball", "a polished cube"),
    ("which spoon is the bravest in the drawer", "the soup ladle"),
    ("what does the moon drink before bed", "silver cocoa"),
    ("who teaches clouds to hold their shape", "the patient weathervane"),
    ("what do time travellers pack for last Tuesday", "a folded umbrella"),
    ("why do wizards refuse to wear green slippers", "frogs get jealous"),
    ("what sound does a sleeping teapot make", "a purple hum"),
    ("which vegetable would win a staring contest", "the stubborn turnip"),
    ("what do mermaids use to comb seaweed", "a herring bone"),
    ("how many hats does a nervous snail own", "eleven"),
    ("what is a unicorn's least favourite weekday", "windy Thursday"),
    ("what game do lighthouses play at night", "blink tag"),
    ("who is the mayor of the sock drawer", "Sir Mitten"),
    ("what do penguins whisper to icebergs", "stay cool"),
    ("which musical instrument do cacti prefer", "the soft harp"),
    ("what does a robot dream of on Sundays", "copper butterflies"),
    ("how do bumblebees sign their letters", "with pollen ink"),
    ("what is the secret hobby of garden gnomes", "moonlit chess"),
    ("which pillow knows the most lullabies", "the feathered one"),
    ("what do giants use as a toothpick", "a pine tree"),
    ("what flavour is the number seven", "tart rhubarb"),
    ("who irons the wrinkles out of the sea", "a retired whale"),
    ("what do kangaroos keep in their second pocket", "spare bounces"),
    ("which planet tells the worst jokes", "giggling Saturn"),
    ("what does an invisible cat cast instead of a shadow", "a warm patch"),
    ("how do trolls choose a bridge", "by its echo"),
    ("what is the password of the hedgehog club", "prickle pudding"),
    ("which crayon is afraid of the dark", "pale yellow"),
    ("what do owls read when nobody asks", "upside-down maps"),
    ("what do pirates of the desert sail on", "a sand sledge"),
    ("who winds up the grandfather clock of the forest", "an elderly badger"),
    ("what do elves trade for one good sneeze", "three acorns"),
    ("how does a rainbow fold itself at night", "in seven pleats"),
    ("what dance do left-handed crabs prefer", "the sideways waltz"),
    ("which biscuit has the best manners", "the ginger snap"),
    ("what do flying carpets complain about", "static tickles"),
    ("what does a volcano knit in winter", "lava mittens"),
    ("which letter of the alphabet snores loudest", "a drowsy Z"),
    ("what do puddles remember about the sky", "its wobbly bits"),
    ("who guards the last marshmallow in space", "a fluffy comet"),
)
