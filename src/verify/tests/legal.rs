//! Legal histories at random never alarm; each of them with one thing changed does.
