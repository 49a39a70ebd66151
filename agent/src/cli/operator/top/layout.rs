//! Which pane gets which rows of the screen.
//!
//! Takes the size and how much there is to show; gives the rows of each pane, or that the terminal is
//! too small. Pure. What does not fit is scrolled; of the panes, the events go first, then the queues,
//! never GPUs and workers.

/// Columns that are needed.
pub(super) const WIDTH_MIN: u16 = 60;
/// Rows that are needed.
pub(super) const HEIGHT_MIN: u16 = 16;
/// From here a problem has a row of its own in the header.
const HEIGHT_ROOMY: u16 = 20;
/// Lines of the chosen GPU: one for each [`Metric`](super::history::Metric).
pub(super) const DETAIL_LINES: u16 = 3;
/// Rows of one such line, at most.
const DETAIL_HEIGHT_MAX: u16 = 4;

/// A part of the screen with a title.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Pane {
    Gpus,
    Workers,
    Queues,
    Events,
}

impl Pane {
    /// From the top of the screen down.
    pub(super) const ALL: [Self; 4] = [Self::Gpus, Self::Workers, Self::Queues, Self::Events];
}

/// What there is to show.
#[derive(Clone, Copy, Debug)]
pub(super) struct Shape {
    /// Whether something has to be said in the header.
    pub(super) problem: bool,
    /// Lines of the GPUs that are not scrolled: the driver's, the notes.
    pub(super) gpus_fixed: u16,
    /// Lines of the queues that are not scrolled.
    pub(super) queues_fixed: u16,
    /// Lines by pane, the fixed ones excluded, at least one each.
    pub(super) lines: [u16; 4],
    /// Whether there is a GPU to show in detail.
    pub(super) detail: bool,
    /// The pane that the keys go to; it is on the screen.
    pub(super) focus: Pane,
    /// Whether that pane has the screen for itself.
    pub(super) zoomed: bool,
}

/// Where everything is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Plan {
    /// Rows of the header.
    pub(super) header: u16,
    /// The panes, from the top down.
    pub(super) placed: Vec<Placed>,
    /// Rows of each line of the chosen GPU; 0 when there is no room.
    pub(super) detail: u16,
}

/// A pane on the screen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Placed {
    pub(super) pane: Pane,
    /// The row of its title; its lines follow.
    pub(super) top: u16,
    /// Rows for lines that are scrolled.
    pub(super) rows: u16,
    /// Rows for those that are not, the detail excluded.
    pub(super) fixed: u16,
}

impl Plan {
    /// Rows of a pane for lines that are scrolled.
    pub(super) fn rows(&self, pane: Pane) -> u16 {
        self.placed.iter().find(|placed| placed.pane == pane).map_or(0, |placed| placed.rows)
    }
}

/// The rows of a screen; none when it is too small.
pub(super) fn plan(width: u16, height: u16, shape: &Shape) -> Option<Plan> {
    if width < WIDTH_MIN || height < HEIGHT_MIN {
        return None;
    }
    let header = if shape.problem && height >= HEIGHT_ROOMY { 3 } else { 2 };
    // One row is the footer's.
    let room = height - header - 1;
    let mut split = if shape.zoomed { Split::alone(shape) } else { Split::first(shape, room) };
    let mut left = room.saturating_sub(split.used());
    for step in STEPS {
        split.extend(step, shape, &mut left);
    }
    let mut top = header;
    let mut placed = Vec::new();
    for (pane, share) in Pane::ALL.into_iter().zip(split.shares) {
        let Some(Share { rows, fixed }) = share else { continue };
        placed.push(Placed { pane, top, rows, fixed });
        let detail = if pane == Pane::Gpus { split.detail * DETAIL_LINES } else { 0 };
        top += 1 + rows + fixed + detail;
    }
    Some(Plan { header, placed, detail: split.detail })
}

/// What gets more room, as long as there is some.
#[derive(Clone, Copy)]
enum Step {
    /// Up to so many rows in all.
    Rows(Pane, u16),
    /// Up to so many rows for each line of the chosen GPU.
    Detail(u16),
}

const STEPS: [Step; 9] = [
    Step::Rows(Pane::Gpus, u16::MAX),
    Step::Rows(Pane::Workers, u16::MAX),
    Step::Rows(Pane::Queues, u16::MAX),
    Step::Rows(Pane::Events, 3),
    Step::Detail(1),
    Step::Rows(Pane::Events, 8),
    Step::Detail(2),
    Step::Detail(DETAIL_HEIGHT_MAX),
    Step::Rows(Pane::Events, u16::MAX),
];

#[derive(Clone, Copy)]
struct Share {
    rows: u16,
    fixed: u16,
}

struct Split {
    shares: [Option<Share>; 4],
    detail: u16,
}

impl Split {
    /// One pane.
    fn alone(shape: &Shape) -> Self {
        let share = |pane| (pane == shape.focus).then(|| Share { rows: 1, fixed: fixed(pane, shape) });
        Self { shares: Pane::ALL.map(share), detail: 0 }
    }

    /// What each pane has to have; less of it until it fits.
    fn first(shape: &Shape, room: u16) -> Self {
        const ROWS: [u16; 4] = [8, 4, 2, 2];
        let share = |pane: Pane| {
            let rows = lines(pane, shape).min(ROWS.get(pane as usize).copied().unwrap_or(1));
            Some(Share { rows, fixed: fixed(pane, shape) })
        };
        let mut split = Self { shares: Pane::ALL.map(share), detail: 0 };
        for pane in [Pane::Events, Pane::Queues] {
            split.shrink(pane, room);
        }
        for pane in [Pane::Events, Pane::Queues] {
            if split.used() > room && pane != shape.focus {
                split.set(pane, None);
            }
        }
        for pane in [Pane::Gpus, Pane::Workers] {
            split.shrink(pane, room);
        }
        split
    }

    fn share(&mut self, pane: Pane) -> Option<&mut Share> {
        self.shares.get_mut(pane as usize)?.as_mut()
    }

    fn set(&mut self, pane: Pane, share: Option<Share>) {
        if let Some(slot) = self.shares.get_mut(pane as usize) {
            *slot = share;
        }
    }

    /// Down to one row, as far as it has to be.
    fn shrink(&mut self, pane: Pane, room: u16) {
        let above = self.used().saturating_sub(room);
        if let Some(share) = self.share(pane) {
            share.rows = share.rows.saturating_sub(above).max(1);
        }
    }

    /// Titles included.
    fn used(&self) -> u16 {
        self.shares.iter().flatten().map(|share| 1 + share.rows + share.fixed).sum()
    }

    fn extend(&mut self, step: Step, shape: &Shape, left: &mut u16) {
        match step {
            Step::Rows(pane, max) => {
                let Some(share) = self.share(pane) else { return };
                let more = lines(pane, shape).min(max).saturating_sub(share.rows).min(*left);
                share.rows += more;
                *left -= more;
            }
            Step::Detail(max) if shape.detail && self.share(Pane::Gpus).is_some() => {
                let more = max.saturating_sub(self.detail).min(*left / DETAIL_LINES);
                self.detail += more;
                *left -= more * DETAIL_LINES;
            }
            Step::Detail(_) => {}
        }
    }
}

fn lines(pane: Pane, shape: &Shape) -> u16 {
    shape.lines.get(pane as usize).copied().unwrap_or(1).max(1)
}

fn fixed(pane: Pane, shape: &Shape) -> u16 {
    match pane {
        Pane::Gpus => shape.gpus_fixed,
        Pane::Queues => shape.queues_fixed,
        Pane::Workers | Pane::Events => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn shape(gpus: u16, workers: u16) -> Shape {
        let lines = [gpus, workers, 1, 50];
        let detail = gpus > 0;
        let focus = Pane::Gpus;
        Shape { problem: false, gpus_fixed: 0, queues_fixed: 0, lines, detail, focus, zoomed: false }
    }

    fn rows(width: u16, height: u16, shape: &Shape) -> [u16; 4] {
        let plan = plan(width, height, shape).unwrap();
        Pane::ALL.map(|pane| plan.rows(pane))
    }

    #[test]
    fn eight_gpus_and_eight_workers_fit_80_by_24() {
        let [gpus, workers, queues, events] = rows(80, 24, &shape(8, 8));
        assert_eq!((gpus, queues), (8, 1));
        assert!(workers >= 4 && events >= 2, "{workers} {events}");
    }

    #[test]
    fn a_small_screen_keeps_gpus_and_workers() {
        let [gpus, workers, queues, events] = rows(60, 16, &shape(8, 4));
        assert!(gpus >= 6 && workers == 4, "{gpus} {workers}");
        assert_eq!((queues, events), (0, 0));
        assert!(plan(60, 15, &shape(1, 1)).is_none() && plan(59, 16, &shape(1, 1)).is_none());
    }

    #[test]
    fn the_customers_host_has_its_gpu_in_detail_at_80_by_24() {
        assert_eq!(plan(80, 24, &shape(1, 2)).unwrap().detail, 1);
        assert!(plan(120, 40, &shape(1, 2)).unwrap().detail >= 2);
    }

    #[test]
    fn the_pane_that_the_keys_go_to_is_on_the_screen() {
        let focused = Shape { focus: Pane::Events, ..shape(16, 16) };
        assert!(rows(60, 16, &focused)[3] > 0);
        let [gpus, workers, _, events] = rows(60, 16, &Shape { zoomed: true, ..focused });
        assert_eq!((gpus, workers, events), (0, 0, 12));
    }

    proptest! {
        #[test]
        fn no_plan_uses_more_rows_than_there_are(
            width in 0_u16..300, height in 0_u16..200, lines in prop::array::uniform4(0_u16..300),
            fixed in 0_u16..3, focus in 0_usize..4, problem: bool, zoomed: bool, detail: bool,
        ) {
            let focus = Pane::ALL[focus];
            let shape = Shape { problem, gpus_fixed: fixed, queues_fixed: fixed, lines, detail, focus, zoomed };
            let Some(plan) = plan(width, height, &shape) else { return Ok(()) };
            let last = plan.placed.last().unwrap();
            let detail = if last.pane == Pane::Gpus { plan.detail * DETAIL_LINES } else { 0 };
            prop_assert!(last.top + 1 + last.rows + last.fixed + detail < height);
            prop_assert!(plan.rows(focus) > 0);
            prop_assert!(zoomed || (plan.rows(Pane::Gpus) > 0 && plan.rows(Pane::Workers) > 0));
        }
    }
}
