//! Every refusal, byte for byte, and one for each reason.
