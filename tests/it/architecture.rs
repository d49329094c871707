//! The floors of the house: a module names only modules below its own.
