//! The words and sentence forms of Arabic word problems. The last form of each list is held out for evaluation.

mod going;
mod keeping;

use super::Forms;
use super::arabic::Noun;

/// A theme of Arabic problems.
pub(crate) struct ArabicTheme {
    pub(crate) weight: u32,
    /// Empty: people.
    pub(crate) names: &'static [(&'static str, bool)],
    pub(crate) things: &'static [Noun],
    pub(crate) forms: Forms,
}

/// Names and whether they are women's.
pub(crate) const NAMES_ARABIC: &[(&str, bool)] = &[
    ("سامي", false),
    ("سارة", true),
    ("عمر", false),
    ("ليلى", true),
    ("يوسف", false),
    ("مريم", true),
    ("خالد", false),
    ("هدى", true),
    ("كريم", false),
    ("نور", true),
    ("حسن", false),
    ("سلمى", true),
    ("علي", false),
    ("فاطمة", true),
    ("أحمد", false),
    ("رنا", true),
    ("ماجد", false),
    ("دانة", true),
    ("طارق", false),
    ("عائشة", true),
    ("زيد", false),
    ("لينا", true),
    ("نبيل", false),
    ("جنى", true),
    ("بدر", false),
    ("أمل", true),
    ("فهد", false),
    ("هند", true),
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

/// The themes, with how often each is chosen.
pub(crate) const ARABIC_THEMES: &[ArabicTheme] = &[keeping::THINGS, keeping::PAGES, keeping::COINS, going::BUSES];
