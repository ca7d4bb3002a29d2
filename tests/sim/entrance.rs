//! The entrance to the simulated agent's sink: shipments wait in an inbox for the lane's turn.

use std::sync::Arc;

use nodewick::data::delivery::{Outlet, Shipment};
use parking_lot::Mutex;

use crate::plan::Planted;

/// What the tail has handed out and the lane has not taken.
pub type Inbox = Arc<Mutex<Vec<Shipment>>>;

/// Where the tail hands out what it has sealed.
pub struct Entrance {
    pub inbox: Inbox,
    /// A defect that the oracle must find.
    pub planted: Planted,
    pub offered: Mutex<u32>,
}

impl Outlet for Entrance {
    fn required(&self) -> bool {
        true
    }

    fn offer(&self, mut shipment: Shipment) {
        let mut offered = self.offered.lock();
        *offered += 1;
        match self.planted {
            Planted::AcksEarly => {
                if let Some(ticket) = shipment.ticket.take() {
                    ticket.delivered();
                }
            }
            Planted::DropsABatch if *offered == 7 => {
                if let Some(ticket) = shipment.ticket.take() {
                    ticket.delivered();
                }
                return;
            }
            _ => {}
        }
        self.inbox.lock().push(shipment);
    }
}
