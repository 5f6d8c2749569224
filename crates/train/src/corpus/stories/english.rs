//! English stories: openings, plots and endings. See [`super`] for the signs.

use super::Plot;

pub(super) const CHILDREN: &[(&str, bool)] = &[
    ("Mia", true),
    ("Ben", false),
    ("Sara", true),
    ("Tom", false),
    ("Lily", true),
    ("Sam", false),
    ("Anna", true),
    ("Leo", false),
    ("Nora", true),
    ("Max", false),
    ("Ella", true),
    ("Jack", false),
    ("Rosa", true),
    ("Omar", false),
    ("Zoe", true),
    ("Adam", false),
    ("Lina", true),
    ("Noah", false),
    ("Maya", true),
    ("Finn", false),
    ("Ruth", true),
    ("Ivy", true),
    ("Hugo", false),
    ("Dina", true),
    ("Amir", false),
    ("June", true),
    ("Eric", false),
    ("Hana", true),
    ("Oscar", false),
    ("Layla", true),
    ("Peter", false),
    ("Clara", true),
    ("Felix", false),
    ("Emma", true),
    ("Yusuf", false),
    ("Alma", true),
    ("Theo", false),
    ("Mona", true),
    ("Karim", false),
    ("Vera", true),
];

/// Animals that can be the hero, with a fitting name.
pub(super) const BEASTS: &[(&str, &str, bool)] = &[
    ("fox", "Rusty", false),
    ("hedgehog", "Pip", false),
    ("mouse", "Minnow", true),
    ("owl", "Olga", true),
    ("rabbit", "Clover", true),
    ("bear", "Bruno", false),
    ("duck", "Daisy", true),
    ("frog", "Fergus", false),
    ("squirrel", "Hazel", true),
    ("cat", "Tilly", true),
    ("dog", "Biscuit", false),
    ("donkey", "Dusty", false),
    ("turtle", "Tara", true),
    ("sparrow", "Chip", false),
    ("goat", "Greta", true),
    ("camel", "Sandy", false),
    ("badger", "Bert", false),
    ("bee", "Bella", true),
    ("elephant", "Ellie", true),
    ("penguin", "Paddy", false),
];

pub(super) const PLACES: &[&str] = &[
    "a village by the sea",
    "a town between two hills",
    "a house at the edge of the forest",
    "a small farm",
    "a street with old trees",
    "a valley with a blue lake",
    "a harbour full of boats",
    "a quiet place near the river",
    "a town where it often rained",
    "a house with a green door",
    "a village on a mountain",
    "an island with a lighthouse",
    "a tall house in the city",
    "a place at the edge of the desert",
    "a street of bakers and tailors",
];

pub(super) const OPENINGS: &[&str] = &[
    "Once upon a time there was {hero}. <He/She> lived in {place}.",
    "In {place} lived {hero}.",
    "There was once {hero} who lived in {place}.",
    "{A} was {kind} from {place}. [Everyone there knew <him/her>|<He/She> liked to [sing|whistle|ask questions|look at clouds]].",
    "Long ago, in {place}, there lived {hero}.",
    "This is a story about {hero}. <His/Her> home was in {place}.",
    "On a [warm|cold|windy|bright|grey|quiet] [morning|day|afternoon] {hero} [woke up early|looked out of the window|went outside].",
    "{A} lived in {place}. [It was {season}|It was almost {season}], and the air smelled of [grass|snow|bread|rain|apples].",
    "Do you know {A}? {A} is {kind}, and <he/she> lives in {place}.",
];

pub(super) const ENDINGS: &[&str] = &[
    "From that day on {A} and {B} were [best friends|good friends|never apart].",
    "That night {A} fell asleep with a smile.",
    "\"What a day!\" said {A}, and [everyone laughed|{B} agreed].",
    "And {A} never forgot that day.",
    "{A} was [tired but happy|proud and happy|so glad that <he/she> danced all the way home].",
    "And when {A} told the story at home, nobody could believe it.",
    "Since then {A} knows: [it is good to ask for help|small steps lead far|a friend is better than a treasure|it is brave to try again|being kind costs nothing|the truth makes the heart light].",
    "Then they sat down together and ate {food}.",
    "The [moon|sun|first star] came out, and all was [well|quiet|peaceful].",
    "{B} hugged {A}, and they [went home|walked home slowly|ran home through the [rain|grass|snow]].",
];

pub(super) const SEASONS: &[&str] = &["spring", "summer", "autumn", "winter"];
pub(super) const FOODS: &[&str] = &[
    "warm bread",
    "soup",
    "apple cake",
    "honey cakes",
    "pancakes",
    "dates and milk",
    "cheese and olives",
    "cherries",
    "rice pudding",
    "ripe figs",
    "cookies",
    "a big melon",
];
pub(super) const THINGS: &[&str] = &[
    "kite",
    "ball",
    "little boat",
    "drum",
    "lantern",
    "hat",
    "scarf",
    "book",
    "toy train",
    "silver key",
    "blue cup",
    "paper bird",
    "wooden horse",
    "bell",
    "ring",
    "map",
    "flute",
    "red glove",
    "umbrella",
    "basket",
];
pub(super) const COLOURS: &[&str] = &["red", "blue", "green", "yellow", "white", "golden", "grey", "purple"];

pub(super) const PLOTS: &[Plot] = &[
    Plot {
        about: "a lost {thing}",
        text: "One day {A} could not find <his/her> {thing}. <He/She> looked [under the bed|behind the door|in the cupboard], [then in the garden|then on the stairs], but it was not there. \"[Don't cry|Don't worry],\" said {B}. \"[Where did you see it last|When did you have it last]?\" {A} thought [hard|for a while]. \"[By the well|Under the old tree|At the bridge]!\" <he/she> cried. They ran there, and [there it lay in the grass|a bird was sitting on it|it was a little wet, but it was whole].",
    },
    Plot {
        about: "a broken {thing}",
        text: "{A} was playing with {B}'s {thing}. [Crack|Snap]! Suddenly it was broken. {A}'s heart beat fast. [<He/She> wanted to hide it|First <he/she> thought of saying nothing]. But then <he/she> went to {B} and said: \"I broke your {thing}. I am sorry.\" {B} was [sad|quiet] for a moment. \"Thank you for telling me,\" said {B}. \"[Let us mend it together|We can fix it with glue and string].\" They worked until [supper|evening], and the {thing} was [almost as good as new|even stronger than before].",
    },
    Plot {
        about: "the dark",
        text: "{A} was afraid of the dark. Every night the [coat on the chair|shadow of the tree|curtain] looked like a [giant|wolf|ghost]. One evening {B} brought a [lantern|candle|small lamp]. \"Look,\" said {B}, \"it is only [a coat|a tree|a curtain].\" {A} touched it and [had to laugh|felt silly]. \"And in the dark,\" said {B}, \"you can see the stars best.\" They [opened the window|went outside] and counted the stars until they [yawned|lost count].",
    },
    Plot {
        about: "a {animal} in trouble",
        text: "On the way home {A} heard a [small|thin|sad] sound. A {animal} was stuck in [the mud|a fence|a thorn bush]. {A} tried to pull it out, but <he/she> was not strong enough. So <he/she> [called for|ran to get] {B}. Together they [pulled|pushed and pulled] until the {animal} was free. It [looked at them|shook itself], and then it [ran off into the trees|followed them home|lay down at their feet].",
    },
    Plot {
        about: "a new friend",
        text: "A new [family|neighbour] had come to the place, and with them came {B}. {B} sat alone on [the steps|a bench|the wall] and [said nothing|looked at the ground]. {A} was shy too. But <he/she> took <his/her> {thing} and sat down beside {B}. \"[Do you want to play|Shall I show you the river|Would you like to try it]?\" <he/she> asked. {B} [nodded|smiled for the first time]. They [played|talked] until [the lamps were lit|it was time for supper].",
    },
    Plot {
        about: "the only piece of cake",
        text: "There was only one piece of {food} left, and both {A} and {B} wanted it. \"It is mine!\" said {A}. \"No, mine!\" said {B}. They [shouted|pulled at the plate] until it fell on the floor, and [the dog|a hen|the cat] ate it up. {A} looked at {B}, and {B} looked at {A}. Then they [both began to laugh|felt very silly]. \"Next time,\" said {A}, \"we cut it in two.\"",
    },
    Plot {
        about: "a kite in a tree",
        text: "The wind was strong, and {A}'s {colour} kite flew higher than the [roofs|church tower|trees]. Then the string [broke|slipped out of <his/her> hand], and the kite [caught in the top of a tree|hung in a high branch]. {A} [climbed|jumped], but <he/she> could not reach it. {B} had an idea. [They put one box on another|They took a long pole|They asked the wind to blow once more, and waited]. At last the kite came down [with a little hole|without a scratch].",
    },
    Plot {
        about: "a seed",
        text: "{B} gave {A} a [tiny|round|striped] seed. {A} put it into the earth and [watered it|sang to it] every day. A day went by, a week went by, and nothing happened. \"It does not work,\" said {A}. \"Wait a little,\" said {B}. After [the rain|a long while], a green tip looked out of the ground. It grew and grew, until there was a [sunflower|bean plant|little apple tree] [taller than {A}|as high as the window].",
    },
    Plot {
        about: "the first time in the water",
        text: "All the others could swim, only {A} could not. The water was [cold|deep|dark], and {A} stood at the edge with [trembling knees|a sinking heart]. \"I will hold you,\" said {B}. First {A} put in one foot, then the other. <He/She> [swallowed water|splashed about] and wanted to go home. But <he/she> tried again, and [again|once more], and on the third day {B} let go without a word. {A} was swimming!",
    },
    Plot {
        about: "a secret gift",
        text: "It was nearly {B}'s birthday, and {A} had no money for a gift. So <he/she> [gathered shells|collected wood|asked for old cloth] and worked in secret every evening. [\"What are you doing?\" asked {B}. \"Nothing!\" said {A}|When {B} came by, {A} hid everything under the bed]. On the birthday {A} brought a [necklace of shells|small wooden bird|soft blanket]. {B} was silent for a moment. \"It is the nicest thing that I ever got,\" {B} said.",
    },
    Plot {
        about: "a storm",
        text: "In the night a storm came. The wind [howled|shook the windows], and [the roof began to leak|the lamp went out]. {A} pulled the blanket over <his/her> head. Then <he/she> heard {B} calling from next door: [the door would not close|water came in]! {A} was afraid, but <he/she> ran through the rain. Together they [pushed the door shut|put a bucket under the hole|held the shutters]. In the morning [the sky was clean and blue|the storm was gone].",
    },
    Plot {
        about: "the race",
        text: "Every year there was a race [around the lake|up the hill|through the village], and {A} wanted to win. <He/She> was in front from the start. But then <he/she> heard a cry: {B} had fallen and held <B:his/her> [knee|foot]. {A} [looked at the finish|stopped]. Then <he/she> turned around and helped {B} up. They came in last, arm in arm, and [the people cheered louder for them than for the winner|nobody clapped as long for the winner].",
    },
    Plot {
        about: "the noise in the attic",
        text: "Knock, knock, knock! Something was [moving|knocking] above {A}'s bed. \"A ghost,\" [whispered|said] {A}. {B} took a [lamp|broom], and they went up the stairs, step by step. In the corner stood [an old box|a broken chair], and behind it sat [a young owl|three small kittens|a fat mouse with a nut]. \"So you are our ghost!\" said {A}, and they brought it [some milk|a few crumbs|a soft cloth].",
    },
    Plot {
        about: "a cake that went wrong",
        text: "{A} and {B} wanted to bake {food} for [grandmother|the neighbours|the feast]. {A} took the salt and thought it was sugar. {B} forgot to look at the oven. [Black smoke came out|It smelled terrible]. They tasted it and [made a face|coughed]. \"Once more from the beginning,\" said {B}. This time they read [every line|the recipe aloud], and it became [golden|so good that nothing was left].",
    },
    Plot {
        about: "the old bridge",
        text: "To get to the [market|school|other side], {A} had to cross an old bridge. It [creaked|swung in the wind], and below it the water was loud. {A} did not dare. {B} went ahead and said: \"Look at me and not at the water.\" {A} took one step, then another. In the middle <he/she> [stopped and held on tight|wanted to turn back]. But {B} [held out a hand|sang a song], and then they were across.",
    },
    Plot {
        about: "a letter",
        text: "{A} found a letter [in a bottle|under a stone|in an old book]. It said: \"[Whoever finds this, please write back|I am alone on my island and would like a friend|Look under the third tree].\" {A} showed it to {B}. They [wrote an answer|followed the words], and waited [for many days|all week]. At last somebody [came|answered]: an old [sailor|woman|man], who had written it [as a child|long, long ago].",
    },
    Plot {
        about: "the snow",
        text: "In the morning everything was white. {A} [jumped out of bed|ran out without a hat]. <He/She> and {B} rolled a big ball, and a smaller one, and a [very small|third] one. \"He needs a nose,\" said {B}. {A} ran in and got a [carrot|potato]. They gave the snowman {A}'s [hat|scarf]. At noon the sun came out, and the snowman grew [smaller and smaller|thin]. \"[He went to the sea|He will come back next winter],\" said {B}.",
    },
    Plot {
        about: "market day",
        text: "It was market day, and {A} was allowed to go with {B}. There were [oranges|spices|carpets|hens], and people called from all sides. {A} stopped to look at a {thing}, and when <he/she> turned around, {B} was gone. {A} did not run. <He/She> stayed [by the fountain|where <he/she> was], as <he/she> had learned, and asked [the baker|a kind woman|the man with the melons] for help. Soon {B} came [running|through the crowd] and took {A}'s hand.",
    },
    Plot {
        about: "the {animal} that did not sleep",
        text: "In the garden there was a {animal} that could not sleep. {A} gave it [a leaf|a bit of straw] for a pillow, but it did not help. {B} told it a [long|very boring] story, but it did not help. Then {A} began to hum [softly|very quietly]. {B} yawned. {A} yawned. And the {animal}? It had been asleep [for a long time|since the first note].",
    },
    Plot {
        about: "a treasure map",
        text: "{A} found an old map in [grandfather's|an old sailor's|a dusty] chest. [Ten steps from the well|Behind the mill|Under the crooked tree], there was a cross. {A} and {B} dug [all morning|until their hands hurt]. They found a box, and in the box lay [a {thing}|only a piece of paper]. [On it was written: the treasure is the one who dug with you|It was old and without value, but they kept it like gold].",
    },
    Plot {
        about: "a tooth",
        text: "{A} had a loose tooth. It wobbled when <he/she> ate and when <he/she> spoke. \"Pull it out,\" said {B}. \"No!\" said {A}. <He/She> tried [a string|an apple|a hard piece of bread], but each time <he/she> [lost courage|stopped]. Then {B} told such a funny story that {A} laughed out loud, and [plop|look there], the tooth lay in <his/her> hand.",
    },
    Plot {
        about: "the clock that stood still",
        text: "The old clock [on the tower|in the hall] had stopped, and now nobody knew [when to eat|when to sleep|what time it was]. {A} climbed up to have a look. Between the wheels sat a [small bird|beetle|nest with three eggs]. \"We cannot start it now,\" said {B}. So they waited [until the birds could fly|for three weeks], and {A} called the time every hour. Then the clock went tick tock again.",
    },
    Plot {
        about: "a song",
        text: "{A} had a song in <his/her> head, but the last line was missing. <He/She> asked [the miller|the baker], but he did not know it. <He/She> asked [the river|the wind], but it only [rushed|whispered]. In the evening {A} sang the song to {B}, and when <he/she> came to the end, {B} simply sang on. It was the missing line. \"[Where did you learn it|How do you know it]?\" asked {A}. \"From you,\" said {B}, \"you sing it in your sleep.\"",
    },
    Plot {
        about: "a visit to grandmother",
        text: "Grandmother was ill, and {A} wanted to bring her {food}. The way was [long|steep], and it began to [rain|snow]. {B} said: \"Let us wait.\" But {A} put the food under <his/her> coat and went on. When they came in, grandmother [sat up|opened her eyes] and smiled. They [made tea|lit the fire] and told her everything, and after [a while|two bowls] she said: \"I feel better already.\"",
    },
    Plot {
        about: "the thief in the garden",
        text: "Every morning [a cabbage|a carrot|some lettuce] was missing from the garden. \"A thief!\" said {A}. In the night <he/she> and {B} hid behind [the shed|a barrel]. They waited and [shivered|tried not to giggle]. Then there was a rustle, and out of the dark came a [rabbit|hedgehog|small deer] with [four|three|two] little ones. {A} looked at {B}. \"We planted too much anyway,\" said {A}, and since then there is [a corner only for them|always a bowl by the fence].",
    },
    Plot {
        about: "the picture",
        text: "{A} painted a picture of [the sea|a {animal}|<his/her> street], but it did not look right. [The {animal} looked like a potato|The sky was too dark|Everything ran together], and <he/she> wanted to tear it up. \"Wait,\" said {B}, and turned it [around|upside down]. Now it looked like [a dancing cloud|a whale with a hat|a wild garden]. {A} laughed, took the {colour} paint, and [painted on|made it even wilder]. Today the picture hangs [over the table|in the hall].",
    },
    Plot {
        about: "a wish",
        text: "One night {A} saw a falling star. \"I wish for [a {animal}|a {thing}|an adventure],\" <he/she> whispered. In the morning nothing was there. {A} was [sad|cross] all day. But then {B} knocked and said: \"I have to [go away for a while|work all week]. Can you look after [my {animal}|this {thing}]?\" {A} [opened <his/her> mouth and closed it again|could hardly speak]. \"With pleasure,\" <he/she> said.",
    },
    Plot {
        about: "learning to whistle",
        text: "{B} could whistle, and {A} could not. Only air came out. {A} practised [on the way to school|in the bath|behind the house], until [the dog ran away|everyone held their ears]. \"You blow too hard,\" said {B}. {A} tried it very softly. [A tiny sound|One clear note] came out, and a bird in the tree [answered|stopped and listened].",
    },
    Plot {
        about: "the boat trip",
        text: "{A} and {B} built a boat out of [an old door|boxes|barrels]. They took {food} along and pushed off. In the middle of the [lake|pond|river] {A} felt water at <his/her> feet. \"[A hole|We are sinking]!\" <he/she> cried. {B} put a [hat|shoe] on the hole, and {A} paddled with [both hands|a spoon]. They reached the shore [soaking wet|just in time]. \"Tomorrow we build a better one,\" said {B}.",
    },
    Plot {
        about: "the {colour} bird",
        text: "A {colour} bird came to {A}'s window every [morning|evening]. {A} wanted to keep it and put it in a cage. But in the cage the bird [did not sing|hung its head]. \"It is homesick,\" said {B}. {A} thought about it all night. Then <he/she> opened the [cage|little door]. The bird flew away, and {A} [swallowed hard|waved]. But the next [morning|day] it sat at the window again, and sang.",
    },
    Plot {
        about: "who is the strongest",
        text: "{A} and {B} argued about who was stronger. {A} lifted a [stone|log]. {B} lifted a [bigger stone|bench]. Then a [cart|tree trunk] blocked the road, and neither of them could move it alone. They [looked at each other|stopped arguing], counted to three and pushed together. The way was free. \"The strongest of all,\" said {A}, \"is we.\"",
    },
    Plot {
        about: "a foggy morning",
        text: "The fog was so thick that {A} could not see <his/her> own [feet|hand]. <He/She> had to get to {B}, but which way was it? {A} [stood still and listened|closed <his/her> eyes and listened]. On the left the river was rushing, so the [mill|village] had to be on the right. <He/She> went [slowly|step by step]. Then a bell rang. It was {B}, who had thought of [{A}|everything], and stood at the door and rang until {A} arrived.",
    },
];
pub(super) const ANIMALS: &[&str] = &[
    "lamb",
    "kitten",
    "puppy",
    "duckling",
    "young goat",
    "hedgehog",
    "squirrel",
    "small owl",
    "rabbit",
    "turtle",
    "calf",
    "pony",
    "little fox",
    "frog",
];
