//! Every verb of the command line, told as a story.
