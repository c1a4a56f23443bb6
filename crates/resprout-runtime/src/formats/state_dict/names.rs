//! Converts the names of a file to those of a model: takes off prefixes, and drops what is not a weight.

use super::stored::Stored;
use std::collections::{BTreeMap, BTreeSet, HashSet};

/// Prefixes that compilation and sharding put in front of any module's name.
const WRAPPERS: [&str; 3] = ["_orig_mod.", "_fsdp_wrapped_module.", "_checkpoint_wrapped_module."];

/// Keys under which checkpoints, and classes around a network, keep its weights. The first one in a file is taken.
const HEADS: [&str; 15] = [
    "state_dict",
    "model_state_dict",
    "model_state",
    "model",
    "module",
    "net",
    "network",
    "weights",
    "params",
    "student",
    "state_dict_ema",
    "ema_state_dict",
    "model_ema",
    "ema_model",
    "ema",
];

/// Keys of training state in a checkpoint.
const TRAINERS: [&str; 7] = ["optimizer", "optimizers", "optimizer_state_dict", "optim", "scheduler", "lr_scheduler", "scaler"];

/// Counters among the weights: of batches, of averages, of operations.
const COUNTERS: [&str; 5] = ["num_batches_tracked", "n_averaged", "num_updates", "total_ops", "total_params"];

/// The most names that a message lists.
pub(super) const SHOWN: usize = 4;

/// The first few names, for messages.
pub(super) fn some<T: AsRef<str>>(names: impl IntoIterator<Item = T>) -> String {
    let names: Vec<T> = names.into_iter().collect();
    let shown: Vec<String> = names.iter().take(SHOWN).map(|name| format!("{:?}", name.as_ref())).collect();
    let more = if names.len() > SHOWN { ", ..." } else { "" };
    format!("{}{more}", shown.join(", "))
}

/// A count with its noun: "1 tensor", "2 tensors".
pub(super) fn count(number: usize, what: &str) -> String {
    format!("{number} {what}{}", if number == 1 { "" } else { "s" })
}

/// The tensors of a file by name.
pub(in crate::formats) struct Names<'f> {
    pub(in crate::formats) tensors: Vec<(String, Stored<'f>)>,
    /// What else the file holds.
    pub(in crate::formats) others: Vec<String>,
}

impl Names<'_> {
    /// Takes prefixes off the names that the model expects, and drops everything else. Adds notes about both.
    pub(super) fn simplify(&mut self, expected: &BTreeSet<String>, notes: &mut Vec<String>) {
        let mut left_out: BTreeMap<String, usize> = std::mem::take(&mut self.others).into_iter().map(|name| (name, 0)).collect();
        self.unwrap(expected, notes);
        let heads: HashSet<&str> = expected.iter().filter_map(|name| head(name)).collect();
        while let Some(key) = self.head(&heads) {
            let prefix = format!("{key}.");
            let (inside, beside): (Vec<_>, Vec<_>) =
                std::mem::take(&mut self.tensors).into_iter().partition(|(name, _)| name.starts_with(&prefix));
            for (name, _) in beside {
                *left_out.entry(head(&name).unwrap_or(&name).to_string()).or_default() += 1;
            }
            notes.push(format!("{prefix:?} was taken off the names of {}", count(inside.len(), "tensor")));
            self.tensors = inside.into_iter().map(|(name, stored)| (name[prefix.len()..].to_string(), stored)).collect();
        }
        self.tensors.retain(|(name, _)| {
            let trainer = head(name).filter(|head| TRAINERS.contains(head) && !heads.contains(head));
            trainer.map(|head| *left_out.entry(head.to_string()).or_default() += 1).is_none()
        });
        self.drop_counters(expected, notes);
        if !left_out.is_empty() {
            let row = |(name, tensors): (String, usize)| match tensors {
                0 => format!("{name:?}"),
                tensors => format!("{name:?} ({})", count(tensors, "tensor")),
            };
            let names: Vec<String> = left_out.into_iter().map(row).collect();
            let more = if names.len() > 2 * SHOWN { ", ..." } else { "" };
            notes.push(format!("left out, beside the weights: {}{more}", names[..names.len().min(2 * SHOWN)].join(", ")));
        }
    }

    fn unwrap(&mut self, expected: &BTreeSet<String>, notes: &mut Vec<String>) {
        for wrapper in WRAPPERS.iter().filter(|wrapper| !expected.iter().any(|name| name.contains(**wrapper))) {
            let mut found = 0;
            for (name, _) in self.tensors.iter_mut().filter(|(name, _)| name.contains(wrapper)) {
                *name = name.replace(wrapper, "");
                found += 1;
            }
            if found > 0 {
                notes.push(format!("{wrapper:?} was taken off the names of {}", count(found, "tensor")));
            }
        }
    }

    /// The first of [`HEADS`] that holds a tensor and is no name of the model.
    fn head(&self, expected: &HashSet<&str>) -> Option<&'static str> {
        let there: HashSet<&str> = self.tensors.iter().filter_map(|(name, _)| head(name)).collect();
        HEADS.into_iter().find(|key| there.contains(key) && !expected.contains(key))
    }

    fn drop_counters(&mut self, expected: &BTreeSet<String>, notes: &mut Vec<String>) {
        let mut dropped: BTreeMap<&str, usize> = BTreeMap::new();
        self.tensors.retain(|(name, _)| {
            let last = name.rsplit('.').next();
            match COUNTERS.into_iter().find(|counter| last == Some(counter) && !expected.contains(name)) {
                Some(counter) => {
                    *dropped.entry(counter).or_default() += 1;
                    false
                }
                None => true,
            }
        });
        for (counter, number) in dropped {
            notes.push(format!("left out: {} ({counter})", count(number, "counter")));
        }
    }
}

/// Whether a name is that of training state.
pub(in crate::formats) fn is_trainer(name: &str) -> bool {
    head(name).is_some_and(|head| TRAINERS.contains(&head))
}

/// The part of a name in front of the first dot.
fn head(name: &str) -> Option<&str> {
    name.split_once('.').map(|(head, _)| head)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::formats::state_dict::Number;

    fn simplified(names: &[&str], expected: &[&str]) -> (Vec<String>, String) {
        let stored = || Stored::contiguous(vec![], "float32".into(), Number::F32, &[0; 4]);
        let tensors = names.iter().map(|name| (name.to_string(), stored())).collect();
        let mut names = Names { tensors, others: vec!["epoch".into()] };
        let mut notes = Vec::new();
        names.simplify(&expected.iter().map(|name| name.to_string()).collect(), &mut notes);
        (names.tensors.into_iter().map(|(name, _)| name).collect(), notes.join("; "))
    }

    #[test]
    fn prefixes_are_taken_off_and_noted() {
        let (names, notes) = simplified(
            &[
                "state_dict.module._orig_mod.conv.weight",
                "state_dict.n_averaged",
                "optimizer.state.0.exp_avg",
                "state_dict_ema.conv.weight",
            ],
            &["conv.weight"],
        );
        assert_eq!(names, ["conv.weight"]);
        for part in
            ["\"_orig_mod.\"", "\"state_dict.\"", "\"module.\"", "\"epoch\"", "\"optimizer\" (1 tensor)", "\"n_averaged\""]
        {
            assert!(notes.contains(part), "{part}: {notes}");
        }
    }

    #[test]
    fn names_of_the_model_stay() {
        let (names, _) = simplified(&["net.0.weight", "net.1.num_batches_tracked", "fc.weight"], &["net.0.weight", "fc.weight"]);
        assert_eq!(names, ["net.0.weight", "fc.weight"]);
        let (names, _) = simplified(&["module.net.0.weight"], &["net.0.weight"]);
        assert_eq!(names, ["net.0.weight"]);
    }
}
