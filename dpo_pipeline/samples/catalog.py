"""The words of the scenario: what customers of the shop Fernhill buy, what goes wrong, and how they write about it."""

from typing import NamedTuple


class Issue(NamedTuple):
    """Something that goes wrong with an order.

    Attributes:
        phrasings: How a customer says it; `{product}` is filled in.
        acknowledged: How an agent names it, after "sorry that" or "understand that".
        actions: What an agent does about it; `{product}` and `{order}` are filled in. Each names the order.
        shrug: What an agent says who does nothing; `{order}` is filled in.
    """

    phrasings: tuple[str, ...]
    acknowledged: str
    actions: tuple[str, ...]
    shrug: str


PRODUCTS = (
    "kettle", "lamp", "backpack", "blender", "headphones", "jacket", "router", "desk chair", "coffee grinder", "tent",
)  # fmt: skip

ISSUES = {
    "broken": Issue(
        (
            "The {product} arrived with a long crack down one side.",
            "When I opened the box the {product} was smashed.",
            "Something rattled in the parcel, and indeed the {product} is broken.",
            "I unpacked the {product} this morning and it is damaged beyond use.",
        ),
        "your {product} arrived broken",
        (
            "I have arranged a new {product} for order {order} and it ships today.",
            "I have sent a replacement {product} under order {order}, free of charge.",
        ),
        "Order {order} left our warehouse in good condition.",
    ),
    "late": Issue(
        (
            "The {product} was promised for last Tuesday and nothing came.",
            "Two weeks have gone by and there is still no {product} at my door.",
            "Tracking for the {product} has not moved since the first of the month.",
            "I keep waiting for the {product}, which should have been here days ago.",
        ),
        "your {product} is late",
        (
            "I have moved order {order} to express delivery, so the {product} reaches you tomorrow.",
            "I have traced order {order} with the courier and booked the {product} for tomorrow morning.",
        ),
        "Order {order} is somewhere on its way.",
    ),
    "wrong": Issue(
        (
            "You sent me somebody else's things instead of the {product} I chose.",
            "I picked the {product} in blue and got a red one.",
            "The parcel holds a different model of {product} from the one I paid for.",
            "This is not the {product} from the picture on your page.",
        ),
        "you received the wrong {product}",
        (
            "I have ordered the right {product} for you under {order} and booked a pickup of the other one.",
            "I have sent the correct {product} for order {order}, and you may keep the wrong one.",
        ),
        "Order {order} was packed as listed.",
    ),
    "missing": Issue(
        (
            "The screws for the {product} were not in the box.",
            "A whole bag of parts for the {product} is missing.",
            "I cannot use the {product} because the power cable was left out.",
            "The {product} came without the cover shown in your shop.",
        ),
        "a part of your {product} was missing",
        (
            "I have sent the missing part of the {product} for order {order} by express mail.",
            "I have booked the missing {product} part for order {order} and it leaves today.",
        ),
        "Order {order} should contain all parts.",
    ),
    "charged": Issue(
        (
            "My bank shows the price of the {product} two times.",
            "I was billed twice for one single {product}.",
            "There are two identical charges on my card for the {product}.",
            "You took the money for the {product} once in March and again in April.",
        ),
        "you were charged twice for your {product}",
        (
            "I have refunded the second charge on order {order}, and the {product} stays paid.",
            "I have cancelled the double payment for the {product} on order {order}.",
        ),
        "Order {order} shows a payment.",
    ),
    "refund": Issue(
        (
            "I returned the {product} a month ago and saw no money since.",
            "The refund for the {product} never reached my account.",
            "Your warehouse has had the {product} back for weeks, yet I was not repaid.",
            "I sent back the {product}, I have the receipt, and my money is still with you.",
        ),
        "the refund for your {product} is overdue",
        (
            "I have started the refund for the {product} on order {order} and it arrives in three days.",
            "I have refunded the {product} from order {order} to your card just now.",
        ),
        "Refunds such as the one for order {order} take time.",
    ),
    "stopped": Issue(
        (
            "After one week of normal use the {product} gave up.",
            "The {product} worked for six days and then went silent for good.",
            "Since yesterday the {product} does nothing at all, whatever I try.",
            "My {product} died in the middle of breakfast, nine days old.",
        ),
        "your {product} stopped working",
        (
            "I have booked a repair of the {product} from order {order} with free pickup tomorrow.",
            "I have arranged a warranty swap of the {product} from order {order} for this week.",
        ),
        "Order {order} comes with a manual.",
    ),
    "cancel": Issue(
        (
            "I found that I do not need the {product} any more and want to cancel it.",
            "The cancel button for the {product} only shows an error.",
            "I ordered the {product} by mistake and would like to stop it.",
            "Please take the {product} off my purchase before it is packed.",
        ),
        "cancelling your {product} was not easy",
        (
            "I have cancelled the {product} on order {order} and returned the full amount.",
            "I have stopped order {order}, and the money for the {product} is on its way back.",
        ),
        "Order {order} may or may not have been packed.",
    ),
}

MOODS = {
    "calm": (
        "Hello there, I hope you are having a fine day.",
        "Good morning, a quick question from a regular customer.",
        "Hi team, nothing dramatic, but I could use a hand.",
        "Dear Fernhill people, I am writing about a small thing.",
        "Greetings from the coast, where it rains again.",
        "Good evening, I will keep this short.",
    ),
    "worried": (
        "I am a little nervous about this and hope you can help.",
        "Hello, I do not know whom else to ask.",
        "This was meant as a present for my mother, so I am worried.",
        "Hi, the party is on Saturday and my stomach is in knots.",
        "I have never had trouble with you before, and now I am unsure.",
        "Excuse me, could somebody look at my case before the weekend?",
    ),
    "annoyed": (
        "To be honest I expected more from a shop like yours.",
        "It is the second time this year that I have to write.",
        "I have been on hold for forty minutes and gave up.",
        "Your help page sent me in circles, so here I am.",
        "Well, this did not go as advertised.",
        "My patience with online shops is running thin.",
    ),
    "furious": (
        "This is outrageous and I am telling everyone I know.",
        "I am so angry that I can hardly type.",
        "Unbelievable, what a way to treat people who pay you!",
        "Never again, that is all I want to say about your service.",
        "Enough is enough, I demand to be heard now.",
        "What on earth are you doing over there?",
    ),
}

CHANNELS = {"email": "Hello", "chat": "Hi", "phone": "Good day"}
"""How a customer reached the shop, and the greeting an agent opens with there."""

ORDER_MENTIONS = (
    "My order number is {order}.",
    "It concerns {order}.",
    "You will find it under {order} in your system.",
    "The confirmation mail says {order}.",
    "Reference {order}, bought in spring.",
    "Look for {order}, please.",
    "On the invoice it reads {order}.",
    "For your files: {order}.",
    "The label carries the code {order}.",
    "I bought it as {order} with my loyalty card.",
    "Order {order}, paid by card, shipped to my office.",
    "Here is the number again, {order}, as your robot asked.",
    "(The purchase in question is {order}.)",
    "If it helps, the slip has {order} printed on top.",
)

ASKS = (
    "What can you do about it?",
    "How do we sort this out?",
    "Please tell me the next step.",
    "Can someone fix that for me?",
    "I would love to hear a solution today.",
    "Let me know how you want to handle this.",
    "When will this be settled?",
    "Do I have to wait much longer?",
    "Kindly put it right.",
    "So, who takes care of it?",
    "I count on a quick answer.",
    "Would you check and come back to me?",
    "Tell me honestly what happens now.",
    "Is there a person who can decide?",
    "I need a clear reply, not a form letter.",
    "Surely there is a simple way out.",
)

SIGN_OFFS = (
    "{name}",
    "Regards, {name}",
    "Thanks, {name}",
    "My name is {name}, by the way.",
    "This is {name} speaking.",
    "Yours, {name}",
    "Best wishes from {name}",
    "Signed: {name}",
)

ORDER_WORDS = (
    "MAPLE", "CEDAR", "RIVER", "CORAL", "FLINT", "OLIVE", "AMBER", "BIRCH", "COMET", "DELTA", "EMBER", "FROST",
    "GROVE", "HAZEL", "IVORY", "JASPER", "LOTUS", "MANGO", "NORTH", "ONYX", "PEARL", "QUARTZ", "RAVEN", "TULIP",
)  # fmt: skip

NAMES = (
    "Maya", "Jonas", "Amina", "Pavel", "Lucia", "Henrik", "Noor", "Tomas", "Greta", "Samir", "Elena", "Victor",
    "Ingrid", "Malik", "Rosa", "Dmitri", "Yara", "Oscar", "Leila", "Bruno", "Sofia", "Kenji", "Marta", "Andre",
    "Nadia", "Felix", "Clara", "Hugo", "Zainab", "Peter", "Irene", "Mateo", "Freya", "Omar", "Julia", "Ravi",
)  # fmt: skip
