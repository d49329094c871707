//! Rules that change while requests are judged.
