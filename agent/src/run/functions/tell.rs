//! What is said of functions in logs.

use super::file::Mapped;
use crate::function::plan::ModulePlan;

/// How many functions a message names.
const NAMED: usize = 5;

/// Says which functions match but are not probed.
pub(super) fn tell_refused(module: &Mapped, plan: &ModulePlan) {
    for refused in &plan.refused {
        let (function, reason) = (&refused.name, &refused.reason);
        tracing::info!(module = module.name, %function, %reason, "function is not probed");
    }
    if !plan.refused.is_empty() {
        tracing::warn!(
            module = module.name,
            functions = plan.refused.len(),
            "not probed (`remora functions` says why): {}",
            list(plan.refused.iter().map(|refused| refused.name.as_str()))
        );
    }
}

/// The first of some names, and how many there are beyond.
pub(super) fn list<'a>(mut names: impl Iterator<Item = &'a str>) -> String {
    let mut text = names.by_ref().take(NAMED).collect::<Vec<_>>().join(", ");
    let more = names.count();
    if more > 0 {
        text += &format!(" and {more} more");
    }
    text
}
