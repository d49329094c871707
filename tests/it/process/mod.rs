//! A process that lives: whatever happens to its log, its files and its clients.

mod files;
mod log;
mod secrets;
