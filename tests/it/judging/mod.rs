//! What is judged of a request beside its path: parameters, ids, bodies, and where the client is.

mod addresses;
mod networks;
