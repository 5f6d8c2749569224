//! The counted bytes and operations against the one list of parameters, for every fixture.

mod common;

use common::all_models;
use kernels::attention::CacheFormat;
use model::cache::Cache;
use model::cost::Work;
use model::load::Model;
use model::parameters::Part;
use model::spec::{Attention, BlockSpec};

const ONE: Work = Work { sequences: 1, tokens: 1, depth: 0, logits: 1, cache: CacheFormat::BF16 };

fn no_indexer(block: &BlockSpec) -> bool {
    !matches!(&block.attention, Attention::Mla(mla) if mla.indexer.is_some())
}

#[test]
fn a_token_multiplies_with_every_active_matrix_once() {
    for path in all_models() {
        let model = Model::open(&path).unwrap();
        let spec = &model.spec;
        let cost = model.cost(&ONE);
        // The active parameters, less the vectors, which the counts of costs leave out.
        let mut vectors = 0;
        for parameter in spec.parameters() {
            let in_use = match parameter.slot.expert {
                Some(expert) => {
                    let model::parameters::Place::Block(l) = parameter.slot.place else { continue };
                    let model::spec::Ffn::Moe(moe) = &spec.blocks[l].ffn else { unreachable!() };
                    expert < moe.used
                }
                None => !matches!(parameter.slot.place, model::parameters::Place::Mtp(_)),
            };
            if in_use && parameter.shape.len() == 1 && parameter.slot.part != Part::Embedding {
                vectors += parameter.elements();
            }
        }
        let products: f64 = cost.product_operations.iter().map(|(_, n)| n).sum();
        assert_eq!(products, 2.0 * (spec.counts().active - vectors) as f64, "{}", path.display());
        let page = Cache::page_bytes(spec, CacheFormat::BF16) as f64 / kernels::attention::PAGE_LEN as f64;
        assert_eq!(cost.cache_bytes, page, "{}: the first token is written and nothing read", path.display());
    }
}

#[test]
fn more_work_costs_what_it_adds() {
    for path in all_models() {
        let model = Model::open(&path).unwrap();
        let (one, name) = (model.cost(&ONE), path.display());
        let four = model.cost(&Work { sequences: 4, logits: 4, ..ONE });
        assert_eq!(four.operations(), 4.0 * one.operations(), "{name}");
        assert_eq!(four.cache_bytes, 4.0 * one.cache_bytes, "{name}");
        assert!(four.weight_bytes > one.weight_bytes && four.weight_bytes < 4.0 * one.weight_bytes, "{name}");
        // A prompt at once costs the operations of its tokens one by one, but reads weights once.
        let whole = model.cost(&Work { tokens: 20, logits: 20, ..ONE });
        let steps = (0..20).map(|depth| model.cost(&Work { depth, ..ONE }));
        let (operations, bytes) = steps.fold((0.0, 0.0), |sum, c| (sum.0 + c.operations(), sum.1 + c.weight_bytes));
        assert_eq!(whole.operations(), operations, "{name}");
        assert!(whole.weight_bytes < bytes, "{name}");
        let deep = model.cost(&Work { depth: 1000, ..ONE });
        if model.spec.blocks.iter().all(no_indexer) && model.spec.family == "DeepSeek-V3" {
            assert_eq!(deep.cache_bytes, 1001.0 * one.cache_bytes, "{name}");
            assert_eq!(deep.attention_operations, 1001.0 * one.attention_operations, "{name}");
        }
        assert!(deep.cache_bytes > one.cache_bytes, "{name}");
    }
}
