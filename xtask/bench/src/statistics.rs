//! Medians and their like, over samples that are few or many.

/// The middle one; of an even number the mean of the middle two. NaN if there are none.
pub(crate) fn median(samples: impl IntoIterator<Item = f64>) -> f64 {
    quantile(samples, 0.5)
}

/// The mean. NaN if there are none.
pub(crate) fn mean(samples: impl IntoIterator<Item = f64>) -> f64 {
    let (sum, count) = samples.into_iter().fold((0.0, 0), |(sum, n), value| (sum + value, n + 1));
    sum / f64::from(count)
}

/// The least. NaN if there are none.
pub(crate) fn least(samples: impl IntoIterator<Item = f64>) -> f64 {
    samples.into_iter().fold(f64::NAN, f64::min)
}

/// The greatest. NaN if there are none.
pub(crate) fn greatest(samples: impl IntoIterator<Item = f64>) -> f64 {
    samples.into_iter().fold(f64::NAN, f64::max)
}

/// `value` over `floor`. NaN if the floor is not above what cannot be told from nothing.
pub(crate) fn ratio(value: f64, floor: f64, noise: f64) -> f64 {
    if floor > noise { value / floor } else { f64::NAN }
}

/// A figure of one phase, and the round that it was taken in.
pub(crate) type OfRound = (usize, f64);

/// Each of `with` combined with the mean of what `without` has of the same round, so that what the
/// machine did otherwise meanwhile hits both. A round that has only one of them counts for nothing.
pub(crate) fn by_round(
    with: impl Iterator<Item = OfRound>,
    without: impl Iterator<Item = OfRound>,
    combine: impl Fn(f64, f64) -> f64,
) -> Vec<f64> {
    let without: Vec<OfRound> = without.collect();
    let pairs = with.filter_map(|(round, figure)| {
        let same = without.iter().filter(|(of, _)| *of == round).map(|(_, figure)| *figure);
        let base = mean(same);
        (!base.is_nan()).then(|| combine(figure, base))
    });
    pairs.collect()
}

/// In which order `count` phases of a round are measured: each round begins elsewhere and every
/// other one goes backwards, so that no phase always comes first or after the same one.
pub(crate) fn order(count: usize, round: usize) -> Vec<usize> {
    let mut order: Vec<usize> = (0..count).map(|at| (at + round / 2) % count).collect();
    if round % 2 == 1 {
        order.reverse();
    }
    order
}

/// The value below which a share of the samples lies, between neighbours by their distance.
pub(crate) fn quantile(samples: impl IntoIterator<Item = f64>, share: f64) -> f64 {
    let mut sorted: Vec<f64> = samples.into_iter().collect();
    sorted.sort_by(f64::total_cmp);
    let Some(last) = sorted.len().checked_sub(1) else { return f64::NAN };
    let place = share * last as f64;
    let below = sorted.get(place as usize).copied().unwrap_or(f64::NAN);
    let above = sorted.get(place.ceil() as usize).copied().unwrap_or(below);
    below + (above - below) * place.fract()
}

/// A median with the range of the middle half behind it.
pub(crate) fn spread(samples: &[f64]) -> String {
    let at = |share| quantile(samples.iter().copied(), share);
    format!("middle half {:.3}–{:.3}", at(0.25), at(0.75))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_order_has_every_phase() {
        for round in 0..9 {
            let mut sorted = order(5, round);
            assert!(round == 0 || sorted != order(5, round - 1));
            sorted.sort_unstable();
            assert_eq!(sorted, [0, 1, 2, 3, 4]);
        }
    }

    #[test]
    fn rounds_are_compared_with_themselves() {
        let with = [(0, 2.0), (1, 9.0), (2, 4.0)];
        let without = [(0, 3.0), (0, 5.0), (2, 8.0), (3, 1.0)];
        let ratios = by_round(with.into_iter(), without.into_iter(), |with, base| with / base);
        assert_eq!(ratios, [0.5, 0.5]);
    }

    #[test]
    fn middles() {
        for (samples, middle) in
            [(vec![3.0], 3.0), (vec![4.0, 1.0, 2.0], 2.0), (vec![4.0, 1.0, 2.0, 3.0], 2.5)]
        {
            assert!((median(samples) - middle).abs() < 1e-9);
        }
        assert!(median([]).is_nan());
        assert!((ratio(3.0, 2.0, 0.0) - 1.5).abs() < 1e-9);
        assert!(ratio(3.0, -2.0, 0.0).is_nan());
        assert!((quantile((0..=100).map(f64::from), 0.99) - 99.0).abs() < 1e-9);
        assert!((least([2.0, 1.0, 3.0]) - 1.0).abs() < 1e-9);
        assert!((greatest([2.0, 1.0, 3.0]) - 3.0).abs() < 1e-9);
    }
}
