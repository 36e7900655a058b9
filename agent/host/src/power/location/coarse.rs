//! Positions rounded to a tenth of a degree.
//!
//! Rounding alone would tell more to whoever asks often: a receiver wavers by some metres, and one that stands where two cells meet would
//! give now the one and now the other. So the cell that was given last is given again until the machine is clearly out of it.

use std::sync::{Mutex, PoisonError};

use super::Position;

/// Cells in a degree.
const CELLS: f64 = 10.0;
/// Degrees from its middle at which a cell is left: a tenth of a cell, about 1 km, beyond its edge. More than a receiver wavers.
const LEAVE: f64 = 0.06;
/// Metres from a cell's middle to the farthest place that is given as it: [`LEAVE`] both ways, where degrees are longest.
const WITHIN: f64 = 9_500.0;
/// Accuracies are rounded up to this many metres, for they tell the source and its moment.
const STEP: f64 = 1_000.0;

/// The cell that was given last, to whomever: packs that compare notes learn no more than one of them.
#[derive(Debug, Default)]
pub(super) struct Cell(Mutex<Option<(f64, f64)>>);

impl Cell {
    pub(super) fn round(&self, exact: Position) -> Position {
        let mut last = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let here =
            |(latitude, longitude): &(f64, f64)| (exact.latitude - latitude).abs() <= LEAVE && (exact.longitude - longitude).abs() <= LEAVE;
        let (latitude, longitude) = last.filter(here).unwrap_or((middle(exact.latitude), middle(exact.longitude)));
        *last = Some((latitude, longitude));
        let accuracy = ((exact.accuracy + WITHIN) / STEP).ceil() * STEP;
        Position { latitude, longitude, accuracy, altitude: None, ..exact }
    }
}

/// The middle of the cell that holds a coordinate; never a negative zero.
fn middle(degrees: f64) -> f64 {
    (degrees * CELLS).round() / CELLS + 0.0
}

#[cfg(test)]
mod tests {
    use super::super::Source;
    use super::*;

    fn at(latitude: f64, longitude: f64) -> Position {
        Position { latitude, longitude, accuracy: 4.2, altitude: Some(34.0), time: 7, source: Source::Gpsd }
    }

    /// Metres between two places, near enough for cells.
    fn metres(a: Position, b: Position) -> f64 {
        let (north, east) = (a.latitude - b.latitude, (a.longitude - b.longitude) * b.latitude.to_radians().cos());
        north.hypot(east) * 111_320.0
    }

    #[test]
    fn all_places_of_a_cell_are_one() {
        let places = [(52.45, 13.35), (52.5, 13.4), (52.549, 13.449), (52.451, 13.449)];
        let rounded: Vec<_> = places.iter().map(|&(north, east)| Cell::default().round(at(north, east))).collect();
        assert!(rounded.iter().all(|place| *place == rounded[1]), "{rounded:?}");
        assert_eq!((rounded[0].latitude, rounded[0].longitude, rounded[0].altitude), (52.5, 13.4, None));
        assert_eq!(rounded[0].accuracy, 10_000.0);
    }

    #[test]
    fn the_accuracy_holds_where_the_machine_is() {
        let steps = |from: i32, to: i32| (from..to).map(|n| f64::from(n) * 0.0137);
        for (north, east) in steps(-6500, 6500).step_by(97).flat_map(|north| steps(-200, 200).map(move |east| (north, east))) {
            let exact = at(north, east);
            let coarse = Cell::default().round(exact);
            assert!(metres(exact, coarse) + exact.accuracy <= coarse.accuracy, "{north} {east}");
        }
    }

    #[test]
    fn a_receiver_that_wavers_at_an_edge_does_not_tell_the_edge() {
        let cell = Cell::default();
        let first = cell.round(at(52.5499, 13.4));
        for wave in 0..100 {
            let waver = f64::from(wave % 7 - 3) * 0.001;
            assert_eq!(cell.round(at(52.55 + waver, 13.4)), first, "{waver}");
        }
        let left = cell.round(at(52.561, 13.4));
        assert_eq!(left.latitude, 52.6);
        assert!(metres(at(52.5599, 13.4599), first) <= WITHIN);
    }

    #[test]
    fn nothing_is_odd_at_the_edges_of_the_map() {
        assert_eq!(Cell::default().round(at(-0.01, 179.99)).latitude.to_bits(), 0.0f64.to_bits());
        for (north, east) in [(90.0, 180.0), (-90.0, -180.0), (89.99, -179.99)] {
            assert!(Cell::default().round(at(north, east)).checked().is_ok(), "{north} {east}");
        }
    }
}
