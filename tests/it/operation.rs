//! What operators see: metrics, health, status, orders.
