//! Panics of this thread: tokio keeps them to itself, and a run in which one happened is a failed one.

use std::cell::RefCell;
use std::sync::Once;

thread_local! {
    static HEARD: RefCell<Vec<String>> = const { RefCell::new(Vec::new()) };
}

/// From now on this process's panics are kept, by thread.
pub fn listen() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            let text = info.to_string();
            // A thread that ends keeps nothing any more.
            let _ = HEARD.try_with(|heard| heard.borrow_mut().push(text));
            before(info);
        }));
    });
    heard();
}

/// Those of this thread since this was last asked.
pub fn heard() -> Vec<String> {
    HEARD.with(|heard| std::mem::take(&mut *heard.borrow_mut()))
}
