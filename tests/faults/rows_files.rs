//! Rows 1 to 8: files and rotation.

use std::time::Duration;

use crate::node::Rotation;
use crate::report::{Pass, Row};
use crate::rig::{Rig, Scale, Setup};

#[test]
fn row_01_rename_rotation_under_load() {
    let scale = Scale::of_run();
    let (max_bytes, every) = scale.pick((32 << 10, 100), (2 << 20, 1000));
    let mut row = Row::begin(
        1,
        "Rename rotation under load",
        format!("rotated at {} KiB, looked at every {every} ms", max_bytes >> 10),
    );
    let rotation = Rotation { max_bytes, every: Duration::from_millis(every) };
    let mut rig = Rig::start(Setup { rotation: Some(rotation), ..Setup::default() });
    rig.load_for(scale.time(4000));
    let outcome = rig.settle();
    let rotations = rig.node.rotations();
    row.note(format!("{rotations} rotations"));
    row.check(rotations >= scale.pick(24, 100), format!("only {rotations} rotations"));
    row.finish(&outcome, Pass { duplicated: Some(0), ..Pass::default() });
}
