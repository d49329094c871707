//! What is asked of the upstream about a caller, how often, and what a failure means.
