//! Which format each tensor of a converted model gets.
//!
//! A [`Recipe`] is a base format and a rule for the matrices that deserve a better one; the names and
//! rules are those of llama.cpp's `quantize` tool, so that `q4_k_m` means what its users expect:
//!
//! | recipe | rule (n layers; "some layers": the first and last eighth, and every third between) |
//! |---|---|
//! | `f32 f16 bf16 q8_0` | every matrix |
//! | `q4_0 q4_1 q5_0 q5_1 q3_k q4_k q5_k q6_k mxfp4` | every matrix; head q6_k |
//! | `iq4_nl iq4_xs` | head q6_k; values (if shared), and downs of the first eighth, q5_k |
//! | `q2_k` | head q6_k; values q4_k (if not shared q3_k); attention outputs and downs q3_k |
//! | `q3_k_m` | head q6_k; values (first two layers q5_k), attention outputs and downs (first sixteenth q5_k) q4_k |
//! | `q3_k_l` | head q6_k; values, attention outputs and downs q5_k |
//! | `q4_k_s` | head q6_k; values of the first four layers and downs of the first eighth q5_k |
//! | `q4_k_m` | head q6_k; values and downs of some layers q6_k |
//! | `q5_k_m` | as `q4_k_m`, over q5_k |
//! | `mxfp4_moe` | experts mxfp4; everything else q8_0 |
//!
//! The head is the output matrix, or the embedding where the two are one; an embedding of its own has
//! the base format. "Values" are value projections ("shared": by four query heads or more); in latent
//! attention also the projection to the latent, because every key and value comes out of it. "Downs"
//! are the down projections of networks and experts. In models of eight experts, attention is so small
//! beside them that its keys and values are q8_0 in every recipe with a better head, and its outputs
//! q5_k in the mixtures of four bits or fewer but `q3_k_l`. Norms, biases, sinks and routers stay f32.

use kernels::format::Format;

use Format::*;

/// A base format and a rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Recipe {
    name: &'static str,
    base: Format,
    rule: Rule,
    /// llama.cpp's number of the recipe (`general.file_type`), where it has one.
    file_type: Option<u32>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Rule {
    /// The base everywhere.
    Uniform,
    /// The base, and a better head.
    BetterHead,
    Iq4,
    Q2K,
    Q3KM,
    Q3KL,
    Q4KS,
    /// `q4_k_m` and `q5_k_m`.
    Medium,
    Mxfp4Moe,
}

const fn recipe(name: &'static str, base: Format, rule: Rule, file_type: u32) -> Recipe {
    Recipe { name, base, rule, file_type: Some(file_type) }
}

/// Every recipe, from the largest files to the smallest.
pub const RECIPES: &[Recipe] = &[
    recipe("f32", F32, Rule::Uniform, 0),
    recipe("bf16", BF16, Rule::Uniform, 32),
    recipe("f16", F16, Rule::Uniform, 1),
    recipe("q8_0", Q8_0, Rule::Uniform, 7),
    recipe("q6_k", Q6K, Rule::BetterHead, 18),
    recipe("q5_1", Q5_1, Rule::BetterHead, 9),
    recipe("q5_k_m", Q5K, Rule::Medium, 17),
    recipe("q5_k", Q5K, Rule::BetterHead, 16),
    recipe("q5_0", Q5_0, Rule::BetterHead, 8),
    recipe("q4_k_m", Q4K, Rule::Medium, 15),
    recipe("q4_1", Q4_1, Rule::BetterHead, 3),
    recipe("q4_k_s", Q4K, Rule::Q4KS, 14),
    Recipe { name: "q4_k", base: Q4K, rule: Rule::BetterHead, file_type: None },
    recipe("q4_0", Q4_0, Rule::BetterHead, 2),
    recipe("iq4_nl", Iq4Nl, Rule::Iq4, 25),
    recipe("iq4_xs", Iq4Xs, Rule::Iq4, 30),
    recipe("mxfp4_moe", Q8_0, Rule::Mxfp4Moe, 38),
    Recipe { name: "mxfp4", base: Mxfp4, rule: Rule::BetterHead, file_type: None },
    recipe("q3_k_l", Q3K, Rule::Q3KL, 13),
    recipe("q3_k_m", Q3K, Rule::Q3KM, 12),
    recipe("q3_k", Q3K, Rule::BetterHead, 11),
    recipe("q2_k", Q2K, Rule::Q2K, 10),
];

/// What a matrix is for, as far as recipes care.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Embedding,
    Head,
    Key,
    Value,
    AttentionOutput,
    Down,
    ExpertDown,
    Expert,
    Other,
}

/// A matrix, as recipes see it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Role {
    pub(super) kind: Kind,
    /// Its layer, and how many there are (multi-token prediction modules included).
    pub(super) layer: usize,
    pub(super) layers: usize,
    /// Query heads that share a key head.
    pub(super) sharing: usize,
    /// Routed experts of the model.
    pub(super) experts: usize,
}

impl Recipe {
    /// The recipe of this name, in lower or upper case.
    pub fn parse(name: &str) -> Option<Recipe> {
        RECIPES.iter().find(|recipe| recipe.name.eq_ignore_ascii_case(name)).copied()
    }

    /// The name in lower case.
    pub fn name(&self) -> &'static str {
        self.name
    }

    /// The same base format in every matrix, head and embedding included.
    pub fn pure(&self) -> Recipe {
        Recipe { rule: Rule::Uniform, ..*self }
    }

    pub(super) fn file_type(&self) -> Option<u32> {
        self.file_type
    }

    /// The format of a matrix whose rows are `cols` long.
    pub(super) fn format(&self, role: &Role, cols: usize) -> (Format, Format) {
        let wanted = self.wanted(role);
        (wanted, fallback(wanted, cols))
    }

    fn wanted(&self, role: &Role) -> Format {
        let Role { kind, layer, layers, sharing, experts } = *role;
        let first = |part: usize| layer < layers / part;
        let some = first(8) || layer >= 7 * layers / 8 || (layer - layers / 8) % 3 == 2;
        let down = matches!(kind, Kind::Down | Kind::ExpertDown);
        let better = match self.rule {
            Rule::Uniform => return self.base,
            Rule::Mxfp4Moe => {
                return if matches!(kind, Kind::Expert | Kind::ExpertDown) { Mxfp4 } else { self.base };
            }
            _ if kind == Kind::Head => return Q6K,
            _ if kind == Kind::Embedding => return self.base,
            _ if experts == 8 && matches!(kind, Kind::Key | Kind::Value) => return Q8_0,
            Rule::BetterHead => None,
            _ if experts == 8 && kind == Kind::AttentionOutput => match self.rule {
                Rule::Q3KL => None,
                _ => (self.base != Q5K).then_some(Q5K),
            },
            Rule::Iq4 => (kind == Kind::Value && sharing >= 4 || down && first(8)).then_some(Q5K),
            Rule::Q2K => match kind {
                Kind::Value if sharing >= 4 => Some(Q4K),
                Kind::Value | Kind::AttentionOutput => Some(Q3K),
                _ => down.then_some(Q3K),
            },
            Rule::Q3KM => match kind {
                Kind::Value => Some(if layer < 2 { Q5K } else { Q4K }),
                Kind::AttentionOutput => Some(Q4K),
                _ if down => Some(if first(16) { Q5K } else { Q4K }),
                _ => None,
            },
            Rule::Q3KL => (down || matches!(kind, Kind::Value | Kind::AttentionOutput)).then_some(Q5K),
            Rule::Q4KS => (kind == Kind::Value && layer < 4 || down && first(8)).then_some(Q5K),
            Rule::Medium => ((kind == Kind::Value || down) && some).then_some(Q6K),
        };
        better.unwrap_or(self.base)
    }
}

/// The nearest format that can hold rows of `cols` elements: of the super-block formats the one of
/// blocks of 32 with about as many bits, and f16 for rows that are not even blocks of 32.
pub(super) fn fallback(wanted: Format, cols: usize) -> Format {
    let fits = |format: Format| format.row_bytes(cols).is_some();
    if fits(wanted) {
        return wanted;
    }
    let smaller = match wanted {
        Q2K | Q3K => Q4_0,
        Q4K => Q5_0,
        Q5K => Q5_1,
        Q6K => Q8_0,
        Iq4Xs => Iq4Nl,
        _ => F16,
    };
    if fits(smaller) { smaller } else { F16 }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn role(kind: Kind, layer: usize) -> Role {
        Role { kind, layer, layers: 32, sharing: 4, experts: 0 }
    }

    #[test]
    fn recipes_give_what_their_names_promise() {
        let format = |name: &str, role: Role| Recipe::parse(name).unwrap().format(&role, 4096).1;
        // Of 32 layers: 0..4, 28..32, and 6, 9, .. 27 between.
        let better: Vec<usize> = (0..32).filter(|&l| format("q4_k_m", role(Kind::Value, l)) == Q6K).collect();
        assert_eq!(better, [0, 1, 2, 3, 6, 9, 12, 15, 18, 21, 24, 27, 28, 29, 30, 31]);
        assert_eq!(format("Q4_K_M", role(Kind::Other, 0)), Q4K);
        assert_eq!(format("q4_k_m", role(Kind::Head, 0)), Q6K);
        assert_eq!(format("q4_k_m", role(Kind::Embedding, 0)), Q4K);
        assert_eq!(format("q4_0", role(Kind::Head, 0)), Q6K);
        assert_eq!(format("q8_0", role(Kind::Head, 0)), Q8_0);
        assert_eq!(format("q2_k", role(Kind::Value, 9)), Q4K);
        assert_eq!(format("q2_k", Role { sharing: 1, ..role(Kind::Value, 9) }), Q3K);
        assert_eq!(format("mxfp4_moe", role(Kind::ExpertDown, 9)), Mxfp4);
        assert_eq!(format("mxfp4_moe", role(Kind::Down, 9)), Q8_0);
        let eight = |kind| Role { experts: 8, ..role(kind, 9) };
        assert_eq!(format("q4_k_s", eight(Kind::Key)), Q8_0);
        assert_eq!(format("q4_k_m", eight(Kind::AttentionOutput)), Q5K);
        let pure = Recipe::parse("q2_k").unwrap().pure();
        assert_eq!(pure.format(&role(Kind::Head, 0), 4096).1, Q2K);
        assert_eq!(Recipe::parse("q4_k_xl"), None);
    }

    #[test]
    fn rows_that_are_not_whole_blocks_fall_back() {
        for (wanted, cols, used) in [
            (Q4K, 512, Q4K),
            (Q4K, 128, Q5_0),
            (Q6K, 96, Q8_0),
            (Iq4Xs, 32, Iq4Nl),
            (Q2K, 32, Q4_0),
            (Q5K, 72, F16),
            (Q8_0, 72, F16),
            (Mxfp4, 48, F16),
            (BF16, 7, BF16),
        ] {
            assert_eq!(fallback(wanted, cols), used, "{wanted} {cols}");
        }
    }

    #[test]
    fn names_are_unique_and_bases_can_be_written() {
        for (i, recipe) in RECIPES.iter().enumerate() {
            assert!(
                RECIPES[i + 1..].iter().all(|other| other.name != recipe.name && other.file_type != recipe.file_type
                    || other.file_type.is_none())
            );
            assert_ne!(recipe.base, F8E4M3);
        }
    }
}
