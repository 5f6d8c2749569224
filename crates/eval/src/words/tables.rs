//! The words and sentence forms of word problems. The last form of each list is held out for evaluation.

use super::Noun;

/// A theme of English problems; an empty list of forms: the theme cannot say it.
pub(crate) struct EnglishTheme {
    pub(crate) weight: u32,
    /// Empty: people.
    pub(crate) names: &'static [(&'static str, bool)],
    pub(crate) things: &'static [(&'static str, &'static str)],
    pub(crate) containers: &'static [(&'static str, &'static str)],
    pub(crate) has: &'static [&'static str],
    pub(crate) groups: &'static [&'static str],
    pub(crate) gains: &'static [&'static str],
    pub(crate) gains_groups: &'static [&'static str],
    pub(crate) loses: &'static [&'static str],
    pub(crate) more: &'static [&'static str],
    pub(crate) fewer: &'static [&'static str],
    pub(crate) times: &'static [&'static str],
    pub(crate) half: &'static [&'static str],
    pub(crate) ask_amount: &'static [&'static str],
    pub(crate) ask_both: &'static [&'static str],
    pub(crate) ask_three: &'static [&'static str],
    pub(crate) ask_difference: &'static [&'static str],
    pub(crate) ask_share: &'static [&'static str],
    pub(crate) ask_price: &'static [&'static str],
}

/// Names and whether they are women's.
pub(crate) const NAMES_ENGLISH: &[(&str, bool)] = &[
    ("Mia", true), ("Ben", false), ("Sara", true), ("Tom", false), ("Lily", true), ("Sam", false), ("Anna", true),
    ("Leo", false), ("Nora", true), ("Max", false), ("Ella", true), ("Jack", false), ("Rosa", true), ("Omar", false),
    ("Zoe", true), ("Adam", false), ("Lina", true), ("Noah", false), ("Maya", true), ("Finn", false), ("Ruth", true),
    ("Carl", false), ("Ivy", true), ("Hugo", false), ("Dina", true), ("Paul", false), ("Kate", true), ("Amir", false),
    ("June", true), ("Eric", false), ("Hana", true), ("Oscar", false), ("Layla", true), ("Peter", false),
];

pub(crate) const ENGLISH_THEMES: &[EnglishTheme] = &[
    EnglishTheme {
        weight: 6,
        names: &[],
        things: &[
            ("apple", "apples"), ("pen", "pens"), ("marble", "marbles"), ("sticker", "stickers"), ("book", "books"),
            ("shell", "shells"), ("egg", "eggs"), ("cookie", "cookies"), ("card", "cards"), ("balloon", "balloons"),
            ("stamp", "stamps"), ("flower", "flowers"), ("button", "buttons"), ("orange", "oranges"),
            ("pencil", "pencils"), ("bead", "beads"), ("nut", "nuts"), ("toy car", "toy cars"), ("stone", "stones"),
            ("lemon", "lemons"), ("candle", "candles"), ("ribbon", "ribbons"), ("block", "blocks"), ("cup", "cups"),
        ],
        containers: &[
            ("box", "boxes"), ("bag", "bags"), ("basket", "baskets"), ("jar", "jars"), ("packet", "packets"),
        ],
        has: &[
            "{A} has {n} {things}.", "{A} has {n} {things}.", "{A} owns {n} {things}.", "{A} starts with {n} {things}.",
            "There are {n} {things} on {A}'s table.", "{A} keeps {n} {things} in a drawer.",
        ],
        groups: &[
            "{A} has {k} {boxes} with {n} {things} in each.", "{A} has {k} {boxes}. Each {box} holds {n} {things}.",
            "{A} fills {k} {boxes} with {n} {things} each.", "There are {n} {things} in each of {A}'s {k} {boxes}.",
        ],
        gains: &[
            "{A} buys {n} more {things}.", "{A} finds {n} more {things}.", "Then {A} gets {n} {things} from a friend.",
            "{A}'s [uncle|aunt|sister|brother|neighbour] gives <him/her> {n} {things}.", "Then {A} wins {n} {things}.",
            "{A} is given another {n} {things}.",
        ],
        gains_groups: &[
            "{A} buys {k} {boxes} of {n} {things}.", "Then {A} gets {k} {boxes} with {n} {things} in each.",
            "{A} brings home {k} more {boxes}, each with {n} {things}.",
        ],
        loses: &[
            "{A} gives away {n} {things}.", "{A} loses {n} {things}.", "Then {A} sells {n} {things}.",
            "{A} gives {n} {things} to <his/her> [friend|cousin|teacher].", "{A} drops {n} {things} into the river.",
            "{A} leaves {n} {things} at school.",
        ],
        more: &[
            "{B} has {n} more {things} than {A}.", "{B} has {n} {things} more than {A}.",
            "{B}'s collection has {n} more {things} than {A}'s.",
        ],
        fewer: &[
            "{B} has {n} fewer {things} than {A}.", "{B} has {n} {things} fewer than {A}.",
            "{A} has {n} more {things} than {B}.",
        ],
        times: &[
            "{B} has {times} as many {things} as {A}.", "{B} owns {times} as many {things} as {A}.",
            "The number of {B}'s {things} is {times} the number of {A}'s.",
        ],
        half: &[
            "{B} has half as many {things} as {A}.", "{B} owns half as many {things} as {A}.",
            "{A} has twice as many {things} as {B}.",
        ],
        ask_amount: &[
            "How many {things} does {A} have now?", "How many {things} does {A} have?",
            "How many {things} does {A} have in the end?", "What is the number of {A}'s {things}?",
        ],
        ask_both: &[
            "How many {things} do {A} and {B} have together?", "How many {things} do {A} and {B} have in all?",
            "How many {things} are there if {A} and {B} put theirs together?",
        ],
        ask_three: &[
            "How many {things} do {A}, {B} and {C} have together?", "How many {things} do the three of them have?",
            "How many {things} are there if all three put theirs together?",
        ],
        ask_difference: &[
            "How many more {things} does {B} have than {A}?", "How many {things} more does {B} have than {A}?",
            "By how many {things} is {B} ahead of {A}?",
        ],
        ask_share: &[
            "{A} shares all <his/her> {things} equally among {k} friends. How many does each friend get?",
            "{A} puts all <his/her> {things} into {k} equal groups. How many {things} are in each group?",
            "{A} divides <his/her> {things} evenly between {k} children. How many does one child get?",
        ],
        ask_price: &[
            "Each {thing} costs {n} coins. How many coins do all of {A}'s {things} cost?",
            "{A} sells all <his/her> {things} for {n} coins each. How many coins does <he/she> get?",
            "One {thing} is worth {n} coins. What are all of {A}'s {things} worth?",
        ],
    },
    EnglishTheme {
        weight: 2,
        names: &[],
        things: &[("page", "pages"), ("line", "lines"), ("word", "words")],
        containers: &[("day", "days")],
        has: &[
            "{A} reads {n} {things} on [Monday|Sunday|Friday].", "{A} reads {n} {things} in the morning.",
            "In the first hour {A} gets through {n} {things}.",
        ],
        groups: &[
            "{A} reads {n} {things} a day for {k} days.", "For {k} days {A} reads {n} {things} every day.",
            "{A} spends {k} days with a book and reads {n} {things} on each of them.",
        ],
        gains: &[
            "Then {A} reads {n} more {things}.", "{A} reads another {n} {things} before bed.",
            "The next day {A} reads {n} {things}.", "In the evening {A} adds {n} {things}.",
        ],
        gains_groups: &[
            "Then {A} reads {n} {things} a day for {k} more days.", "After that {A} reads {n} {things} on each of {k} days.",
            "On the next {k} days {A} gets through {n} {things} each.",
        ],
        loses: &[],
        more: &["{B} reads {n} more {things} than {A}.", "{B} beats {A} by {n} {things}."],
        fewer: &["{B} reads {n} fewer {things} than {A}.", "{B} stays {n} {things} behind {A}."],
        times: &["{B} reads {times} as many {things} as {A}.", "{B} gets through {times} as many {things} as {A}."],
        half: &["{B} reads half as many {things} as {A}.", "{B} gets through half as many {things} as {A}."],
        ask_amount: &[
            "How many {things} does {A} read in all?", "How many {things} has {A} read?",
            "What is the total of {A}'s {things}?",
        ],
        ask_both: &[
            "How many {things} do {A} and {B} read together?", "How many {things} is that for {A} and {B} together?",
        ],
        ask_three: &[
            "How many {things} do {A}, {B} and {C} read together?", "How many {things} do the three read in all?",
        ],
        ask_difference: &[
            "How many more {things} does {B} read than {A}?", "By how many {things} is {B} ahead of {A}?",
        ],
        ask_share: &[],
        ask_price: &[],
    },
    EnglishTheme {
        weight: 2,
        names: &[],
        things: &[("coin", "coins"), ("dollar", "dollars"), ("dinar", "dinars")],
        containers: &[("week", "weeks")],
        has: &["{A} has {n} {things}.", "{A} saved {n} {things}.", "There are {n} {things} in {A}'s purse."],
        groups: &[
            "{A} saves {n} {things} a week for {k} weeks.", "{A} works {k} hours and earns {n} {things} an hour.",
            "For {k} weeks {A} puts {n} {things} aside each week.",
        ],
        gains: &[
            "{A} earns {n} more {things}.", "{A} gets {n} {things} for <his/her> birthday.",
            "{A}'s [mother|father|grandmother] gives <him/her> {n} {things}.", "{A} adds {n} {things}.",
        ],
        gains_groups: &[
            "Then {A} earns {n} {things} a day for {k} days.", "{A} sells {k} cakes for {n} {things} each.",
            "Then {A} helps {k} neighbours and each pays {n} {things}.",
        ],
        loses: &[
            "{A} spends {n} {things} on a book.", "{A} pays {n} {things} for lunch.", "Then {A} spends {n} {things}.",
            "{A} gives {n} {things} to <his/her> sister.", "A gift costs {A} {n} {things}.",
        ],
        more: &["{B} has {n} more {things} than {A}.", "{B} has {n} {things} more than {A}.", "{B} is {n} {things} richer than {A}."],
        fewer: &["{B} has {n} fewer {things} than {A}.", "{B} has {n} {things} less than {A}.", "{B} is {n} {things} poorer than {A}."],
        times: &["{B} has {times} as many {things} as {A}.", "{B} saved {times} as many {things} as {A}."],
        half: &["{B} has half as many {things} as {A}.", "{B} saved half as many {things} as {A}."],
        ask_amount: &[
            "How many {things} does {A} have now?", "How many {things} does {A} have left?",
            "How much money does {A} have, in {things}?",
        ],
        ask_both: &["How many {things} do {A} and {B} have together?", "How much is that for {A} and {B} together?"],
        ask_three: &["How many {things} do {A}, {B} and {C} have together?", "How much do the three have in all?"],
        ask_difference: &[
            "How many more {things} does {B} have than {A}?", "By how many {things} is {B} richer than {A}?",
        ],
        ask_share: &[
            "{A} shares the money equally among {k} children. How many {things} does each child get?",
            "{A} divides the money between {k} friends. How many {things} does one friend get?",
        ],
        ask_price: &[],
    },
    EnglishTheme {
        weight: 2,
        names: &[
            ("the red bus", false), ("the blue bus", false), ("the green bus", false), ("the old tram", false),
            ("the ferry", false), ("the night train", false), ("the yellow bus", false),
        ],
        things: &[("passenger", "passengers"), ("child", "children"), ("traveller", "travellers")],
        containers: &[("stop", "stops")],
        has: &[
            "There are {n} {things} on {A}.", "{A} starts with {n} {things}.", "{A} leaves with {n} {things} on board.",
        ],
        groups: &[
            "{A} has {k} rows with {n} {things} in each.", "{A} has {k} cars, each with {n} {things}.",
            "On {A} there are {k} rows, and {n} {things} sit in every row.",
        ],
        gains: &[
            "{n} {things} get on {A}.", "At the next stop {n} {things} get on {A}.", "Then {n} more {things} get on {A}.",
            "{A} takes {n} more {things} on board.",
        ],
        gains_groups: &[
            "At each of the next {k} stops {n} {things} get on {A}.", "{k} groups of {n} {things} get on {A}.",
            "{A} takes {n} {things} on board at each of {k} stops.",
        ],
        loses: &[
            "{n} {things} get off {A}.", "At the next stop {n} {things} get off {A}.", "Then {n} {things} leave {A}.",
            "{A} loses {n} {things} at the station.",
        ],
        more: &["There are {n} more {things} on {B} than on {A}.", "{B} has {n} more {things} than {A}."],
        fewer: &["There are {n} fewer {things} on {B} than on {A}.", "{B} has {n} fewer {things} than {A}."],
        times: &["There are {times} as many {things} on {B} as on {A}.", "{B} has {times} as many {things} as {A}."],
        half: &["There are half as many {things} on {B} as on {A}.", "{B} has half as many {things} as {A}."],
        ask_amount: &[
            "How many {things} are on {A} now?", "How many {things} are on {A}?", "How many {things} ride on {A} in the end?",
        ],
        ask_both: &[
            "How many {things} are on {A} and {B} together?", "How many {things} do {A} and {B} carry in all?",
        ],
        ask_three: &[
            "How many {things} are on {A}, {B} and {C} together?", "How many {things} do all three carry?",
        ],
        ask_difference: &[
            "How many more {things} are on {B} than on {A}?", "By how many {things} is {B} fuller than {A}?",
        ],
        ask_share: &[
            "All {things} of {A} go on in {k} equal groups. How many are in each group?",
            "The {things} of {A} change into {k} small cars, the same number in each. How many are in one car?",
        ],
        ask_price: &[
            "Each of the {things} on {A} pays {n} coins. How many coins is that?",
            "A ticket costs {n} coins. How many coins do all {things} on {A} pay?",
        ],
    },
    EnglishTheme {
        weight: 2,
        names: &[],
        things: &[("kilogram", "kilograms"), ("bag", "bags"), ("basket", "baskets"), ("crate", "crates")],
        containers: &[("row", "rows")],
        has: &[
            "{A} picks {n} {things} of [dates|apples|olives|cherries|potatoes].", "{A} harvests {n} {things} of grapes.",
            "The first tree gives {A} {n} {things} of fruit.",
        ],
        groups: &[
            "{A} has {k} trees, and each gives {n} {things} of fruit.", "{A} picks {n} {things} in each of {k} fields.",
            "From every one of {k} rows {A} takes {n} {things} of beans.",
        ],
        gains: &[
            "{A} picks {n} more {things}.", "The next day {A} picks {n} {things}.", "Then {A} brings in {n} more {things}.",
            "{A} carries another {n} {things} home.",
        ],
        gains_groups: &[
            "Then {A} picks {n} {things} a day for {k} days.", "{k} workers bring {A} {n} {things} each.",
            "From each of {k} more trees {A} takes {n} {things}.",
        ],
        loses: &[
            "{A} sells {n} {things} at the market.", "{A} gives {n} {things} to the neighbours.",
            "The goat eats {n} {things} of {A}'s harvest.", "{n} {things} of {A}'s harvest go bad.",
        ],
        more: &["{B} picks {n} more {things} than {A}.", "{B} harvests {n} {things} more than {A}."],
        fewer: &["{B} picks {n} fewer {things} than {A}.", "{B} harvests {n} {things} less than {A}."],
        times: &["{B} picks {times} as many {things} as {A}.", "{B} harvests {times} as many {things} as {A}."],
        half: &["{B} picks half as many {things} as {A}.", "{B} harvests half as many {things} as {A}."],
        ask_amount: &[
            "How many {things} does {A} have now?", "How many {things} does {A} have?", "How many {things} are in {A}'s barn?",
        ],
        ask_both: &["How many {things} do {A} and {B} have together?", "What is the harvest of {A} and {B} together, in {things}?"],
        ask_three: &["How many {things} do {A}, {B} and {C} have together?", "What is the harvest of all three, in {things}?"],
        ask_difference: &[
            "How many more {things} does {B} have than {A}?", "By how many {things} is {B}'s harvest larger than {A}'s?",
        ],
        ask_share: &[
            "{A} loads the harvest on {k} carts, the same on each. How many {things} are on one cart?",
            "{A} divides the harvest among {k} families. How many {things} does each family get?",
        ],
        ask_price: &[
            "{A} gets {n} coins for each. How many coins does <he/she> get for the whole harvest?",
            "The price is {n} coins for each. What does {A}'s whole harvest bring?",
        ],
    },
    EnglishTheme {
        weight: 1,
        names: &[],
        things: &[("kilometre", "kilometres"), ("metre", "metres"), ("step", "steps")],
        containers: &[("lap", "laps")],
        has: &["{A} walks {n} {things}.", "{A} runs {n} {things} before breakfast.", "{A} covers {n} {things} on foot."],
        groups: &[
            "{A} runs {k} laps of {n} {things} each.", "{A} walks {n} {things} a day for {k} days.",
            "{A} goes up and down the road {k} times, {n} {things} each time.",
        ],
        gains: &["Then {A} walks {n} more {things}.", "After a rest {A} goes another {n} {things}.", "{A} adds {n} {things} in the evening."],
        gains_groups: &["Then {A} runs {k} more laps of {n} {things}.", "On each of the next {k} days {A} walks {n} {things}."],
        loses: &[],
        more: &["{B} goes {n} more {things} than {A}.", "{B} goes {n} {things} further than {A}."],
        fewer: &["{B} goes {n} fewer {things} than {A}.", "{B} stops {n} {things} earlier than {A}."],
        times: &["{B} goes {times} as many {things} as {A}.", "{B} goes {times} as far as {A}."],
        half: &["{B} goes half as many {things} as {A}.", "{B} goes half as far as {A}."],
        ask_amount: &["How many {things} does {A} go in all?", "How many {things} is that for {A}?", "How far does {A} go, in {things}?"],
        ask_both: &["How many {things} do {A} and {B} go together?", "How far do {A} and {B} go in all, in {things}?"],
        ask_three: &["How many {things} do {A}, {B} and {C} go together?", "How far do all three go, in {things}?"],
        ask_difference: &["How many {things} more does {B} go than {A}?", "How much further does {B} go than {A}, in {things}?"],
        ask_share: &[],
        ask_price: &[],
    },
];

/// A theme of Arabic problems; an empty list of forms: the theme cannot say it.
pub(crate) struct ArabicTheme {
    pub(crate) weight: u32,
    /// Empty: people.
    pub(crate) names: &'static [(&'static str, bool)],
    pub(crate) things: &'static [Noun],
    pub(crate) has: &'static [&'static str],
    pub(crate) groups: &'static [&'static str],
    pub(crate) gains: &'static [&'static str],
    pub(crate) gains_groups: &'static [&'static str],
    pub(crate) loses: &'static [&'static str],
    pub(crate) more: &'static [&'static str],
    pub(crate) fewer: &'static [&'static str],
    pub(crate) times: &'static [&'static str],
    pub(crate) half: &'static [&'static str],
    pub(crate) ask_amount: &'static [&'static str],
    pub(crate) ask_both: &'static [&'static str],
    pub(crate) ask_three: &'static [&'static str],
    pub(crate) ask_difference: &'static [&'static str],
    pub(crate) ask_share: &'static [&'static str],
    pub(crate) ask_price: &'static [&'static str],
}

/// Names and whether they are women's.
pub(crate) const NAMES_ARABIC: &[(&str, bool)] = &[
    ("سامي", false), ("سارة", true), ("عمر", false), ("ليلى", true), ("يوسف", false), ("مريم", true), ("خالد", false),
    ("هدى", true), ("كريم", false), ("نور", true), ("حسن", false), ("سلمى", true), ("علي", false), ("فاطمة", true),
    ("أحمد", false), ("رنا", true), ("ماجد", false), ("دانة", true), ("طارق", false), ("عائشة", true), ("زيد", false),
    ("لينا", true), ("نبيل", false), ("جنى", true), ("بدر", false), ("أمل", true), ("فهد", false), ("هند", true),
];

const fn noun(
    one: &'static str,
    two: &'static str,
    two_oblique: &'static str,
    many: &'static str,
    accusative: &'static str,
    the_many: &'static str,
) -> Noun {
    Noun { one, two, two_oblique, many, accusative, the_many }
}

pub(crate) const FRIEND: Noun = noun("صديق", "صديقان", "صديقين", "أصدقاء", "صديقا", "الأصدقاء");
pub(crate) const DAY: Noun = noun("يوم", "يومان", "يومين", "أيام", "يوما", "الأيام");

pub(crate) const ROW: Noun = noun("صف", "صفان", "صفين", "صفوف", "صفا", "الصفوف");
pub(crate) const TEAM: Noun = noun("فرقة", "فرقتان", "فرقتين", "فرق", "فرقة", "الفرق");

pub(crate) const CONTAINERS_ARABIC: &[Noun] = &[
    noun("علبة", "علبتان", "علبتين", "علب", "علبة", "العلب"),
    noun("سلة", "سلتان", "سلتين", "سلال", "سلة", "السلال"),
    noun("حقيبة", "حقيبتان", "حقيبتين", "حقائب", "حقيبة", "الحقائب"),
    noun("صندوق", "صندوقان", "صندوقين", "صناديق", "صندوقا", "الصناديق"),
    noun("كيس", "كيسان", "كيسين", "أكياس", "كيسا", "الأكياس"),
];

pub(crate) const COINS_ARABIC: &[Noun] = &[
    noun("دينار", "ديناران", "دينارين", "دنانير", "دينارا", "الدنانير"),
    noun("ريال", "ريالان", "ريالين", "ريالات", "ريالا", "الريالات"),
    noun("درهم", "درهمان", "درهمين", "دراهم", "درهما", "الدراهم"),
    noun("ليرة", "ليرتان", "ليرتين", "ليرات", "ليرة", "الليرات"),
];

pub(crate) const ARABIC_THEMES: &[ArabicTheme] = &[
    ArabicTheme {
        weight: 6,
        names: &[],
        things: &[
            noun("قلم", "قلمان", "قلمين", "أقلام", "قلما", "الأقلام"),
            noun("كتاب", "كتابان", "كتابين", "كتب", "كتابا", "الكتب"),
            noun("تفاحة", "تفاحتان", "تفاحتين", "تفاحات", "تفاحة", "التفاحات"),
            noun("برتقالة", "برتقالتان", "برتقالتين", "برتقالات", "برتقالة", "البرتقالات"),
            noun("تمرة", "تمرتان", "تمرتين", "تمرات", "تمرة", "التمرات"),
            noun("بيضة", "بيضتان", "بيضتين", "بيضات", "بيضة", "البيضات"),
            noun("وردة", "وردتان", "وردتين", "وردات", "وردة", "الوردات"),
            noun("بطاقة", "بطاقتان", "بطاقتين", "بطاقات", "بطاقة", "البطاقات"),
            noun("صورة", "صورتان", "صورتين", "صور", "صورة", "الصور"),
            noun("كرة", "كرتان", "كرتين", "كرات", "كرة", "الكرات"),
            noun("صدفة", "صدفتان", "صدفتين", "صدفات", "صدفة", "الصدفات"),
            noun("حجر", "حجران", "حجرين", "أحجار", "حجرا", "الأحجار"),
            noun("دفتر", "دفتران", "دفترين", "دفاتر", "دفترا", "الدفاتر"),
            noun("كوب", "كوبان", "كوبين", "أكواب", "كوبا", "الأكواب"),
            noun("طابع", "طابعان", "طابعين", "طوابع", "طابعا", "الطوابع"),
            noun("زر", "زران", "زرين", "أزرار", "زرا", "الأزرار"),
            noun("كعكة", "كعكتان", "كعكتين", "كعكات", "كعكة", "الكعكات"),
            noun("لعبة", "لعبتان", "لعبتين", "ألعاب", "لعبة", "الألعاب"),
        ],
        has: &["لدى {A} {ns}.", "عند {A} {ns}.", "مع {A} {ns}.", "<اشترى/اشترت> {A} {no}.", "<يملك/تملك> {A} {no}."],
        groups: &[
            "لدى {A} {ks}، في كل {box} {ns}.", "عند {A} {ks}، وفي كل {box} {ns}.",
            "<ملأ/ملأت> {A} {ko}، <ووضع/ووضعت> في كل {box} {no}.",
        ],
        gains: &[
            "ثم <اشترى/اشترت> {A} {no}.", "ثم <وجد/وجدت> {A} {no}.", "<أخذ/أخذت> {A} {no} من <صديقه/صديقتها>.",
            "ثم <حصل/حصلت> {A} على {no}.", "<ربح/ربحت> {A} {no}.", "ثم <جمع/جمعت> {A} {no}.",
        ],
        gains_groups: &[
            "ثم <اشترى/اشترت> {A} {ko}، في كل {box} {ns}.", "<أحضر/أحضرت> {A} {ko}، وفي كل {box} {ns}.",
            "ثم <حصل/حصلت> {A} على {ko}، في كل {box} {ns}.",
        ],
        loses: &[
            "<أعطى/أعطت> {A} {no} إلى <صديقه/صديقتها>.", "<فقد/فقدت> {A} {no}.", "ثم <باع/باعت> {A} {no}.",
            "<ترك/تركت> {A} {no} في البيت.", "<أهدى/أهدت> {A} {no} إلى <جاره/جارتها>.",
        ],
        more: &[
            "عدد {many} {B} يزيد على عدد {many} {A} بمقدار {n}.", "لدى {B} أكثر مما لدى {A} بمقدار {n}.",
            "يزيد عدد {many} {B} على عدد {many} {A} بمقدار {n}.",
        ],
        fewer: &[
            "عدد {many} {B} يقل عن عدد {many} {A} بمقدار {n}.", "لدى {B} أقل مما لدى {A} بمقدار {n}.",
            "يقل عدد {many} {B} عن عدد {many} {A} بمقدار {n}.",
        ],
        times: &[
            "عدد {many} {B} {multiple} عدد {many} {A}.", "لدى {B} {multiple} ما لدى {A}.", "عند {B} {multiple} ما عند {A}.",
        ],
        half: &[
            "عدد {many} {B} نصف عدد {many} {A}.", "لدى {B} نصف ما لدى {A}.", "عند {B} نصف ما عند {A}.",
        ],
        ask_amount: &[
            "كم {acc} لدى {A} الآن؟", "كم {acc} عند {A}؟", "كم أصبح عدد {many} {A}؟", "ما عدد {many} {A} الآن؟",
        ],
        ask_both: &["كم {acc} لدى {A} و{B} معا؟", "ما مجموع {many} {A} و{B}؟", "كم {acc} عند {A} و{B} جميعا؟"],
        ask_three: &[
            "كم {acc} لدى {A} و{B} و{C} معا؟", "ما مجموع {many} {A} و{B} و{C}؟", "كم {acc} عند الثلاثة جميعا؟",
        ],
        ask_difference: &[
            "كم يزيد عدد {many} {B} على عدد {many} {A}؟", "ما الفرق بين عدد {many} {B} وعدد {many} {A}؟",
            "بكم يزيد ما لدى {B} على ما لدى {A}؟",
        ],
        ask_share: &[
            "<وزع/وزعت> {A} {the} بالتساوي على {friends}. كم {acc} أخذ كل صديق؟",
            "<قسم/قسمت> {A} {the} بالتساوي على {friends}. ما نصيب كل صديق؟",
        ],
        ask_price: &[
            "ثمن كل {one} {coins}. ما ثمن {many} {A} كلها؟", "<باع/باعت> {A} {the} كلها، وثمن كل {one} {coins}. كم {coin} <أخذ/أخذت> {A}؟",
            "كل {one} بثمن {n}. كم ثمن {many} {A} كلها؟",
        ],
    },
    ArabicTheme {
        weight: 2,
        names: &[],
        things: &[
            noun("صفحة", "صفحتان", "صفحتين", "صفحات", "صفحة", "الصفحات"),
            noun("سطر", "سطران", "سطرين", "أسطر", "سطرا", "الأسطر"),
        ],
        has: &["<قرأ/قرأت> {A} {no} في الصباح.", "<قرأ/قرأت> {A} {no} يوم [الأحد|السبت|الاثنين].", "في اليوم الأول <قرأ/قرأت> {A} {no}."],
        groups: &["<قرأ/قرأت> {A} {no} كل يوم لمدة {days}.", "لمدة {days} <قرأ/قرأت> {A} {no} كل يوم."],
        gains: &[
            "ثم <قرأ/قرأت> {A} {no}.", "وفي المساء <قرأ/قرأت> {A} {no}.", "وفي اليوم التالي <قرأ/قرأت> {A} {no}.",
            "وقبل النوم <قرأ/قرأت> {A} {no}.",
        ],
        gains_groups: &["ثم <قرأ/قرأت> {A} {no} كل يوم لمدة {days}.", "وبعد ذلك <قرأ/قرأت> {A} {no} كل يوم لمدة {days}."],
        loses: &[],
        more: &["<B:قرأ/قرأت> {B} أكثر مما <قرأ/قرأت> {A} بمقدار {n}.", "ما <B:قرأه/قرأته> {B} يزيد على ما <قرأه/قرأته> {A} بمقدار {n}."],
        fewer: &["<B:قرأ/قرأت> {B} أقل مما <قرأ/قرأت> {A} بمقدار {n}.", "ما <B:قرأه/قرأته> {B} يقل عما <قرأه/قرأته> {A} بمقدار {n}."],
        times: &["<B:قرأ/قرأت> {B} {multiple} ما <قرأ/قرأت> {A}.", "<B:قرأ/قرأت> {B} {multiple} ما <قرأه/قرأته> {A}."],
        half: &["<B:قرأ/قرأت> {B} نصف ما <قرأ/قرأت> {A}.", "<B:قرأ/قرأت> {B} نصف ما <قرأه/قرأته> {A}."],
        ask_amount: &["كم {acc} <قرأ/قرأت> {A}؟", "كم {acc} <قرأ/قرأت> {A} في المجموع؟", "ما عدد {the} التي <قرأها/قرأتها> {A}؟"],
        ask_both: &["كم {acc} <قرأ/قرأت> {A} و{B} معا؟", "ما مجموع ما <قرأه/قرأته> {A} و{B}؟"],
        ask_three: &["كم {acc} <قرأ/قرأت> {A} و{B} و{C} معا؟", "ما مجموع ما <قرأه/قرأته> {A} و{B} و{C}؟"],
        ask_difference: &["بكم يزيد ما <B:قرأه/قرأته> {B} على ما <قرأه/قرأته> {A}؟", "ما الفرق بين ما <B:قرأه/قرأته> {B} وما <قرأه/قرأته> {A}؟"],
        ask_share: &[],
        ask_price: &[],
    },
    ArabicTheme {
        weight: 2,
        names: &[],
        things: COINS_ARABIC,
        has: &["لدى {A} {ns}.", "مع {A} {ns}.", "<ادخر/ادخرت> {A} {no}.", "<يملك/تملك> {A} {no}."],
        groups: &["<ادخر/ادخرت> {A} {no} كل يوم لمدة {days}.", "<عمل/عملت> {A} {days} وأجر كل يوم {ns}.", "<جمع/جمعت> {A} {no} كل يوم لمدة {days}."],
        gains: &[
            "ثم <كسب/كسبت> {A} {no}.", "<أخذ/أخذت> {A} {no} من <أمه/أمها>.", "ثم <حصل/حصلت> {A} على {no}.",
            "<أضاف/أضافت> {A} {no}.",
        ],
        gains_groups: &["ثم <كسب/كسبت> {A} {no} كل يوم لمدة {days}.", "ثم <ادخر/ادخرت> {A} {no} كل يوم لمدة {days}."],
        loses: &[
            "<دفع/دفعت> {A} {no} ثمنا لكتاب.", "<أنفق/أنفقت> {A} {no}.", "ثم <أعطى/أعطت> {A} {no} إلى <أخيه/أختها>.",
            "<صرف/صرفت> {A} {no} في السوق.",
        ],
        more: &["لدى {B} أكثر مما لدى {A} بمقدار {n}.", "ما لدى {B} يزيد على ما لدى {A} بمقدار {n}."],
        fewer: &["لدى {B} أقل مما لدى {A} بمقدار {n}.", "ما لدى {B} يقل عما لدى {A} بمقدار {n}."],
        times: &["لدى {B} {multiple} ما لدى {A}.", "مع {B} {multiple} ما مع {A}."],
        half: &["لدى {B} نصف ما لدى {A}.", "مع {B} نصف ما مع {A}."],
        ask_amount: &["كم {acc} لدى {A} الآن؟", "كم {acc} مع {A}؟", "كم {acc} عند {A} في النهاية؟"],
        ask_both: &["كم {acc} لدى {A} و{B} معا؟", "ما مجموع ما لدى {A} و{B}؟"],
        ask_three: &["كم {acc} لدى {A} و{B} و{C} معا؟", "ما مجموع ما لدى {A} و{B} و{C}؟"],
        ask_difference: &["بكم يزيد ما لدى {B} على ما لدى {A}؟", "ما الفرق بين ما لدى {B} وما لدى {A}؟"],
        ask_share: &[
            "<وزع/وزعت> {A} المال بالتساوي على {friends}. كم {acc} أخذ كل صديق؟",
            "<قسم/قسمت> {A} المال بالتساوي على {friends}. ما نصيب كل صديق؟",
        ],
        ask_price: &[],
    },
    ArabicTheme {
        weight: 2,
        names: &[
            ("الحافلة الحمراء", true), ("الحافلة الزرقاء", true), ("الحافلة الخضراء", true), ("الحافلة الكبيرة", true),
            ("السفينة البيضاء", true), ("الحافلة الصفراء", true),
        ],
        things: &[
            noun("راكب", "راكبان", "راكبين", "ركاب", "راكبا", "الركاب"),
            noun("زائر", "زائران", "زائرين", "زوار", "زائرا", "الزوار"),
            noun("طالب", "طالبان", "طالبين", "طلاب", "طالبا", "الطلاب"),
        ],
        has: &["في {A} {ns}.", "كان في {A} {ns}.", "انطلقت {A} وفيها {ns}."],
        groups: &["في {A} {rows}، في كل صف {ns}.", "كان في {A} {rows}، وفي كل صف {ns}.", "تتكون مقاعد {A} من {rows_o}، وفي كل صف {ns}."],
        gains: &["صعد إلى {A} {ns}.", "ثم صعد إلى {A} {ns}.", "وفي المحطة التالية صعد إلى {A} {ns}.", "ركب في {A} {ns}."],
        gains_groups: &[],
        loses: &["نزل من {A} {ns}.", "ثم نزل من {A} {ns}.", "وفي المحطة التالية نزل من {A} {ns}.", "غادر {A} {ns}."],
        more: &["في {B} أكثر مما في {A} بمقدار {n}.", "عدد {the} في {B} يزيد على عددهم في {A} بمقدار {n}."],
        fewer: &["في {B} أقل مما في {A} بمقدار {n}.", "عدد {the} في {B} يقل عن عددهم في {A} بمقدار {n}."],
        times: &["عدد {the} في {B} {multiple} عددهم في {A}.", "في {B} {multiple} ما في {A}."],
        half: &["عدد {the} في {B} نصف عددهم في {A}.", "في {B} نصف ما في {A}."],
        ask_amount: &["كم {acc} في {A} الآن؟", "كم {acc} في {A}؟", "ما عدد {the} في {A} الآن؟"],
        ask_both: &["كم {acc} في {A} و{B} معا؟", "ما مجموع عدد {the} في {A} و{B}؟"],
        ask_three: &["كم {acc} في {A} و{B} و{C} معا؟", "ما مجموع عدد {the} في {A} و{B} و{C}؟"],
        ask_difference: &["بكم يزيد عدد {the} في {B} على عددهم في {A}؟", "ما الفرق بين عدد {the} في {B} وعددهم في {A}؟"],
        ask_share: &[
            "نزل {the} من {A} كلهم في {teams} متساوية العدد. ما عدد أفراد كل فرقة؟",
            "انقسم {the} في {A} إلى {teams} متساوية العدد. ما عدد أفراد كل فرقة؟",
        ],
        ask_price: &[
            "ثمن التذكرة {coins}. كم {coin} دفع {the} في {A} كلهم؟",
            "دفع كل {one} في {A} {n}. ما مجموع ما دفعوه؟",
        ],
    },
];
