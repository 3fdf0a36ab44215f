//! Which traces are kept: the samplers of the OpenTelemetry SDK specification, decided once for each
//! trace, when its root is known.

use super::model::TraceId;

/// A sampler.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sampler {
    /// Whether a caller's `sampled` flag decides where there is one.
    parent_based: bool,
    root: Root,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Root {
    #[default]
    AlwaysOn,
    AlwaysOff,
    /// Kept if the last 56 bits of the trace id are not below this (OpenTelemetry, "Consistent
    /// Probability Sampling"): every agent decides alike.
    Threshold(u64),
}

/// A sampler that is none.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum SamplerError {
    /// The name is unknown.
    #[error(
        "cannot use `{name}` as a sampler: expected always_on, always_off, traceidratio, \
         parentbased_always_on, parentbased_always_off or parentbased_traceidratio"
    )]
    Name {
        /// What was given.
        name: String,
    },
    /// The ratio is no number from 0 to 1.
    #[error("cannot use `{ratio}` as a sampling ratio: expected a number from 0 to 1")]
    Ratio {
        /// What was given.
        ratio: String,
    },
}

const RANDOM_BITS: u32 = 56;

impl Sampler {
    /// From `OTEL_TRACES_SAMPLER` and `OTEL_TRACES_SAMPLER_ARG`; an empty argument is none.
    pub fn parse(name: &str, argument: &str) -> Result<Self, SamplerError> {
        let wrong = || SamplerError::Name { name: name.to_owned() };
        let (parent_based, root) = match name.strip_prefix("parentbased_") {
            Some(root) => (true, root),
            None => (false, name),
        };
        let root = match root {
            "always_on" => Root::AlwaysOn,
            "always_off" => Root::AlwaysOff,
            "traceidratio" => Root::Threshold(threshold(argument)?),
            _ => return Err(wrong()),
        };
        Ok(Self { parent_based, root })
    }

    /// Whether a trace is kept; `told` is the caller's `sampled` flag, if a caller named the trace.
    pub(super) fn keeps(self, trace: TraceId, told: Option<bool>) -> bool {
        match (self.parent_based, told, self.root) {
            (true, Some(sampled), _) => sampled,
            (_, _, Root::AlwaysOn) => true,
            (_, _, Root::AlwaysOff) => false,
            (_, _, Root::Threshold(threshold)) => {
                let bits = u128::from_be_bytes(trace.0) as u64 & ((1 << RANDOM_BITS) - 1);
                bits >= threshold
            }
        }
    }
}

fn threshold(ratio: &str) -> Result<u64, SamplerError> {
    if ratio.is_empty() {
        return Ok(0);
    }
    let wrong = || SamplerError::Ratio { ratio: ratio.to_owned() };
    let number: f64 = ratio.trim().parse().map_err(|_| wrong())?;
    if !(0.0..=1.0).contains(&number) {
        return Err(wrong());
    }
    Ok(((1.0 - number) * (1_u64 << RANDOM_BITS) as f64) as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn samplers_by_name() {
        let keeps = |name, argument, told| {
            let kept = |low: u8| {
                let mut id = [0xff; 16];
                id[9] = low;
                Sampler::parse(name, argument).map(|sampler| sampler.keeps(TraceId(id), told))
            };
            format!("{:?} {:?}", kept(0x20), kept(0xe0))
        };
        for (name, argument, told, kept) in [
            ("always_on", "", None, "Ok(true) Ok(true)"),
            ("always_on", "", Some(false), "Ok(true) Ok(true)"),
            ("always_off", "", Some(true), "Ok(false) Ok(false)"),
            ("traceidratio", "0.5", None, "Ok(false) Ok(true)"),
            ("traceidratio", "0", None, "Ok(false) Ok(false)"),
            ("traceidratio", "1", None, "Ok(true) Ok(true)"),
            ("traceidratio", "", None, "Ok(true) Ok(true)"),
            ("parentbased_always_on", "", Some(false), "Ok(false) Ok(false)"),
            ("parentbased_always_off", "", Some(true), "Ok(true) Ok(true)"),
            ("parentbased_traceidratio", "0.5", None, "Ok(false) Ok(true)"),
        ] {
            assert_eq!(keeps(name, argument, told), kept, "{name} {argument} {told:?}");
        }
        assert!(Sampler::parse("sometimes", "").is_err());
        for ratio in ["x", "1.1", "-1", "NaN"] {
            assert!(Sampler::parse("traceidratio", ratio).is_err(), "{ratio}");
        }
    }
}
