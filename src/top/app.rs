//! What the person who looks has chosen, and what keys do to it.
//!
//! In: pictures, failures, keys. Out: the state that is drawn. No I/O. Invariant: while it is paused the picture stays.

use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyEventKind, KeyModifiers};
use ratatui::widgets::TableState;

use super::Options;
use super::table::{Table, View, table};
use crate::overview::Overview;

/// Letters of a filter.
const MAX_FILTER: usize = 64;

/// Whether to go on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Flow {
    /// Draw and go on.
    On,
    /// The person leaves.
    Leave,
}

/// The state of the screen.
#[derive(Debug)]
pub struct App {
    /// The last picture.
    pub(super) overview: Option<Overview>,
    /// Why there is no newer one.
    pub(super) failure: Option<String>,
    pub(super) view: View,
    sorts: [usize; View::ALL.len()],
    pub(super) filter: String,
    pub(super) is_typing: bool,
    pub(super) is_paused: bool,
    pub(super) is_helping: bool,
    pub(super) colour: bool,
    pub(super) states: [TableState; View::ALL.len()],
    /// Rows of a page, as drawn last.
    pub(super) page: usize,
}

impl App {
    /// The state at the start.
    pub fn new(options: &Options) -> Self {
        let mut sorts = [0; View::ALL.len()];
        let wanted = options.sort.as_deref();
        if let Some(at) = options.view.sorts().iter().position(|name| Some(*name) == wanted) {
            sorts[options.view as usize] = at;
        }
        Self {
            overview: None,
            failure: None,
            view: options.view,
            sorts,
            filter: options.filter.clone(),
            is_typing: false,
            is_paused: false,
            is_helping: false,
            colour: options.colour,
            states: std::array::from_fn(|_| TableState::default().with_selected(0)),
            page: 10,
        }
    }

    /// Takes a picture, or why there is none.
    pub fn take(&mut self, looked: Result<Overview, String>) {
        match looked {
            Ok(_) if self.is_paused => {}
            Ok(overview) => {
                self.overview = Some(overview);
                self.failure = None;
            }
            Err(why) => self.failure = Some(why),
        }
    }

    /// The order of a view, as a number.
    pub(super) fn sort(&self, view: View) -> usize {
        self.sorts[view as usize]
    }

    /// The rows of a view of a picture.
    pub(super) fn table(&self, overview: &Overview, view: View) -> Table {
        table(overview, view, self.sort(view), &self.filter)
    }

    /// What a key does.
    pub fn key(&mut self, key: KeyEvent) -> Flow {
        if key.kind == KeyEventKind::Release {
            return Flow::On;
        }
        let is_control = key.modifiers.contains(KeyModifiers::CONTROL);
        if is_control && matches!(key.code, KeyCode::Char('c' | 'd')) {
            return Flow::Leave;
        }
        if self.is_typing {
            self.type_key(key.code);
            return Flow::On;
        }
        let is_helping = std::mem::take(&mut self.is_helping);
        match key.code {
            KeyCode::Char('q') => return Flow::Leave,
            KeyCode::Esc if is_helping => {}
            KeyCode::Esc if !self.filter.is_empty() => self.set_filter(String::new()),
            KeyCode::Char('?' | 'h') => self.is_helping = !is_helping,
            KeyCode::Char(digit @ '1'..='6') => self.view = View::ALL[digit as usize - '1' as usize],
            KeyCode::Tab | KeyCode::Right => self.turn(1),
            KeyCode::BackTab | KeyCode::Left => self.turn(View::ALL.len() - 1),
            KeyCode::Char('s') => {
                let sort = &mut self.sorts[self.view as usize];
                *sort = (*sort + 1) % self.view.sorts().len();
            }
            KeyCode::Char('p' | ' ') => self.is_paused = !self.is_paused,
            KeyCode::Char('/') => self.is_typing = true,
            KeyCode::Down | KeyCode::Char('j') => self.select(|at| at.saturating_add(1)),
            KeyCode::Up | KeyCode::Char('k') => self.select(|at| at.saturating_sub(1)),
            KeyCode::PageDown => self.select_by_page(1),
            KeyCode::PageUp => self.select_by_page(-1),
            KeyCode::Home | KeyCode::Char('g') => self.select(|_| 0),
            KeyCode::End | KeyCode::Char('G') => self.select(|_| usize::MAX),
            _ => {}
        }
        Flow::On
    }

    fn type_key(&mut self, code: KeyCode) {
        match code {
            KeyCode::Enter => self.is_typing = false,
            KeyCode::Esc => {
                self.is_typing = false;
                self.set_filter(String::new());
            }
            KeyCode::Backspace => {
                let mut filter = self.filter.clone();
                filter.pop();
                self.set_filter(filter);
            }
            KeyCode::Char(letter) if self.filter.chars().count() < MAX_FILTER => {
                self.set_filter(format!("{}{letter}", self.filter));
            }
            _ => {}
        }
    }

    fn set_filter(&mut self, filter: String) {
        self.filter = filter;
        for state in &mut self.states {
            state.select_first();
        }
    }

    fn turn(&mut self, by: usize) {
        self.view = View::ALL[(self.view as usize + by) % View::ALL.len()];
    }

    fn select_by_page(&mut self, pages: isize) {
        let page = self.page.max(1) as isize;
        self.select(|at| at.saturating_add_signed(pages * page));
    }

    fn select(&mut self, next: impl Fn(usize) -> usize) {
        let rows = self.overview.as_ref().map_or(0, |overview| self.table(overview, self.view).rows.len());
        let state = &mut self.states[self.view as usize];
        let at = next(state.selected().unwrap_or(0));
        state.select(Some(at.min(rows.saturating_sub(1))));
    }
}
