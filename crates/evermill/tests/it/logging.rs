//! `logging` in a task: levels are carried, and what a level keeps out stays out.

use crate::process::Place;

const FLOW: &str = r#"
import logging
import evermill

own = logging.getLogger("shop")
own.setLevel(logging.DEBUG)

@evermill.task
def says(ctx):
    own.debug("as fine as can be")
    own.info("as usual")
    own.warning("careful: %s", "stairs")
    own.critical("fire")
    logging.getLogger("other").debug("not asked for")
    ctx.log.error("from ctx")
    try:
        1 / 0
    except ZeroDivisionError:
        own.exception("with its trace")
    print("plain")

@evermill.dag
def talk():
    says()
"#;

#[test]
fn each_line_of_logging_says_its_level() {
    let place = Place::new();
    let file = place.file("talk.py", FLOW);
    let ended = place.finish(["run".as_ref(), file.as_os_str()]);
    assert_eq!(ended.code(), 0, "{}", ended.stderr);
    for said in [
        ": debug: shop: as fine as can be\n",
        ": shop: as usual\n",
        ": warning: shop: careful: stairs\n",
        ": critical: shop: fire\n",
        ": error: evermill.task: from ctx\n",
        ": error: shop: with its trace\n",
        ": error: ZeroDivisionError: division by zero\n",
        ": plain",
    ] {
        assert!(ended.stderr.contains(said), "{said}: {}", ended.stderr);
    }
    assert!(!ended.stderr.contains("not asked for"), "{}", ended.stderr);
}
