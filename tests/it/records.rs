//! What the audit log holds, when, and what happens when it cannot.
