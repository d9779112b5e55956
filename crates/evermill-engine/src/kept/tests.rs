use bytes::Bytes;

use super::*;

pub(super) fn line(run: &str, text: &str) -> LogLine {
    LogLine {
        dag: Some("d".into()),
        run: Some(run.into()),
        task: Some("t".into()),
        position: Some(7),
        lane: Some("l/0".into()),
        key: Some("k".into()),
        try_number: 2,
        worker: None,
        origin: LogOrigin::Logging(30),
        text: Bytes::copy_from_slice(text.as_bytes()),
    }
}

fn of_event(position: u64, text: &str) -> LogLine {
    LogLine {
        position: Some(position),
        key: Some(format!("key-{position}").into()),
        ..line("r", text)
    }
}

fn writer(data_dir: &Path) -> Kept {
    Kept::new(data_dir, LogRetention::default())
}

fn keep(data_dir: &Path, at_ms: u64, text: &str) {
    let mut kept = writer(data_dir);
    kept.write(at_ms, &line("r", text)).unwrap();
    kept.flush().unwrap();
}

pub(super) fn with_segments_of(data_dir: &Path, segment_bytes: u64) -> Kept {
    Kept {
        segment_bytes,
        ..writer(data_dir)
    }
}

fn oldest(from: Option<LogPlace>, limit: usize) -> LogQuery {
    LogQuery {
        order: LogOrder::Oldest,
        from,
        limit,
        ..LogQuery::default()
    }
}

fn newest(filter: LogFilter, limit: usize) -> LogQuery {
    LogQuery {
        filter,
        limit,
        ..LogQuery::default()
    }
}

fn texts(page: &LogPage) -> Vec<&str> {
    page.entries.iter().map(|entry| &*entry.text).collect()
}

/// Every page from one end to the other, and how many there were.
fn all(logs: &RunLogs, mut query: LogQuery) -> (Vec<LogEntry>, usize) {
    let (mut entries, mut pages) = (Vec::new(), 0);
    loop {
        let page = logs.page(&query).unwrap();
        entries.extend(page.entries);
        pages += 1;
        match page.next {
            Some(next) => query.from = Some(next.parse().unwrap()),
            None => return (entries, pages),
        }
    }
}

#[test]
fn a_reader_gets_each_line_once_while_more_are_written() {
    let place = tempfile::tempdir().unwrap();
    let logs = RunLogs::new(place.path(), "r/1");
    let nothing = logs.page(&oldest(None, 10)).unwrap();
    assert_eq!((texts(&nothing).len(), nothing.next), (0, None));
    let begin = nothing.after.parse().unwrap();
    let mut kept = writer(place.path());
    kept.write(5, &line("r/1", "one\ntwo\n")).unwrap();
    kept.write(5, &line("other", "not mine")).unwrap();
    kept.flush().unwrap();
    let first = logs.page(&oldest(Some(begin), 10)).unwrap();
    let expected = LogEntry {
        at_ms: 5,
        task: Some("t".into()),
        lane: Some("l/0".into()),
        position: Some(7),
        key: Some("k".into()),
        try_number: 2,
        worker: None,
        level: "warning".into(),
        text: "one".into(),
    };
    assert_eq!(first.entries[0], expected);
    assert_eq!((texts(&first), first.missed), (vec!["one", "two"], false));
    kept.write(6, &line("r/1", "three")).unwrap();
    kept.flush().unwrap();
    let second = oldest(Some(first.after.parse().unwrap()), 10);
    assert_eq!(texts(&logs.page(&second).unwrap()), ["three"]);
}

#[test]
fn both_directions_give_the_same_lines_in_pages_of_any_size() {
    let place = tempfile::tempdir().unwrap();
    let mut kept = with_segments_of(place.path(), 2_000);
    for position in 0..200 {
        // One that is longer than what is read at a time.
        let long = if position == 77 { 200_000 } else { 10 };
        let text = format!("line {position} {}", "x".repeat(long));
        kept.write(position, &of_event(position, &text)).unwrap();
        if position % 7 == 0 {
            kept.flush().unwrap();
        }
    }
    kept.flush().unwrap();
    let logs = RunLogs::new(place.path(), "r");
    // The oldest segments have gone already.
    let (whole, _) = all(&logs, oldest(None, 1_000));
    assert!(whole.len() > 50, "{}", whole.len());
    assert_eq!(whole.last().unwrap().position, Some(199));
    for limit in [1, 7, 64, 1_000] {
        let (forwards, _) = all(&logs, oldest(None, limit));
        assert_eq!(forwards, whole, "{limit} a page");
        let (mut backwards, _) = all(&logs, newest(LogFilter::default(), limit));
        backwards.reverse();
        assert_eq!(backwards, whole, "{limit} a page, newest first");
    }
}

#[test]
fn what_was_printed_behind_the_newest_page_begins_where_it_says() {
    let place = tempfile::tempdir().unwrap();
    let mut kept = writer(place.path());
    kept.write(1, &line("r", "one\ntwo\nthree")).unwrap();
    kept.flush().unwrap();
    let logs = RunLogs::new(place.path(), "r");
    let page = logs.page(&newest(LogFilter::default(), 2)).unwrap();
    assert_eq!(texts(&page), ["three", "two"]);
    kept.write(2, &line("r", "four")).unwrap();
    kept.flush().unwrap();
    let rest = logs.page(&oldest(Some(page.after.parse().unwrap()), 9));
    assert_eq!(texts(&rest.unwrap()), ["four"]);
    let older = LogQuery {
        from: Some(page.next.unwrap().parse().unwrap()),
        ..newest(LogFilter::default(), 9)
    };
    let older = logs.page(&older).unwrap();
    assert_eq!((texts(&older), &older.next), (vec!["one"], &None));
}

#[test]
fn half_a_line_of_a_killed_process_costs_no_other_and_is_no_error() {
    let place = tempfile::tempdir().unwrap();
    keep(place.path(), 5, "one");
    let logs = RunLogs::new(place.path(), "r");
    let seen = logs.page(&newest(LogFilter::default(), 9)).unwrap();
    let segment = place.path().join("logs/r/00000001.jsonl");
    let mut file = OpenOptions::new().append(true).open(segment).unwrap();
    file.write_all(b"{\"at_ms\":6,\"te").unwrap();
    // While it is half, from either end, and behind what was read before.
    for query in [oldest(None, 9), newest(LogFilter::default(), 9)] {
        let page = logs.page(&query).unwrap();
        assert_eq!((texts(&page), &page.after), (vec!["one"], &seen.after));
    }
    keep(place.path(), 7, "two");
    for query in [oldest(None, 9), newest(LogFilter::default(), 9)] {
        let mut found: Vec<_> = logs.page(&query).unwrap().entries;
        found.sort_by_key(|entry| entry.at_ms);
        let found: Vec<&str> = found.iter().map(|entry| &*entry.text).collect();
        assert_eq!(found, ["one", "two"]);
    }
    let rest = logs.page(&oldest(Some(seen.after.parse().unwrap()), 9));
    assert_eq!(texts(&rest.unwrap()), ["two"]);
}

#[test]
fn what_is_kept_is_bounded_and_who_is_too_far_behind_is_told_so() {
    let place = tempfile::tempdir().unwrap();
    let mut kept = with_segments_of(place.path(), 1_000);
    let long = "x".repeat(1_000);
    let logs = RunLogs::new(place.path(), "r");
    let mut second = None;
    let count = limits::LOG_SEGMENTS_KEPT + 3;
    for number in 0..count {
        kept.write(number, &line("r", &long)).unwrap();
        kept.flush().unwrap();
        if number == 1 {
            second = Some(logs.page(&oldest(None, 9)).unwrap().after.parse().unwrap());
        }
    }
    // The newest segment has nothing yet.
    let page = logs.page(&oldest(None, 100)).unwrap();
    assert_eq!(page.entries.len() as u64, limits::LOG_SEGMENTS_KEPT - 1);
    assert_eq!((page.entries[0].at_ms, page.missed), (4, false));
    let late = logs.page(&oldest(second, 100)).unwrap();
    assert_eq!((late.entries, late.missed), (page.entries, true));
    let older = LogQuery {
        from: second,
        ..newest(LogFilter::default(), 9)
    };
    let older = logs.page(&older).unwrap();
    assert_eq!(
        (older.entries.len(), older.next, older.missed),
        (0, None, true)
    );
    let again = logs
        .page(&oldest(Some(page.after.parse().unwrap()), 9))
        .unwrap();
    assert_eq!((again.entries.len(), again.missed), (0, false));
    let indexes = fs::read_dir(place.path().join("logs/r")).unwrap();
    let indexes = indexes.filter(|entry| {
        let name = entry.as_ref().unwrap().file_name();
        name.to_string_lossy().ends_with(".idx")
    });
    assert_eq!(indexes.count() as u64, limits::LOG_SEGMENTS_KEPT);
}

#[test]
fn any_place_that_somebody_makes_up_is_answered() {
    let place = tempfile::tempdir().unwrap();
    keep(place.path(), 5, "one\ntwo\nthree");
    let logs = RunLogs::new(place.path(), "r");
    let size = fs::metadata(place.path().join("logs/r/00000001.jsonl"))
        .unwrap()
        .len();
    for segment in [0, 1, 2, u64::MAX] {
        for offset in (0..=size).chain([size + 1, u64::MAX]) {
            let from = Some(format!("{segment}.{offset}").parse().unwrap());
            let forwards = logs.page(&oldest(from, 9)).unwrap();
            assert!(forwards.entries.len() <= 3);
            let backwards = LogQuery {
                from,
                ..newest(LogFilter::default(), 9)
            };
            let backwards = logs.page(&backwards).unwrap();
            if segment == 1 && offset <= size {
                let seen = forwards.entries.len() + backwards.entries.len();
                // A place within a line is in front of none and behind none.
                assert!((2..=3).contains(&seen), "{offset}: {seen}");
            }
        }
    }
    for wrong in [
        "",
        "1",
        "1.",
        ".1",
        "x.1",
        "1.x",
        "-1.0",
        "1.18446744073709551616",
    ] {
        assert!(wrong.parse::<LogPlace>().is_err(), "{wrong}");
    }
}

#[test]
fn who_looks_for_one_event_reads_little_and_finds_what_a_whole_reading_finds() {
    let place = tempfile::tempdir().unwrap();
    let mut kept = with_segments_of(place.path(), 1 << 20);
    for position in 0..12_000 {
        let text = format!("{position} {}", "x".repeat(200));
        let mut line = of_event(position, &text);
        if position == 3_000 {
            line.origin = LogOrigin::Logging(40);
        }
        kept.write(position, &line).unwrap();
    }
    kept.flush().unwrap();
    let logs = RunLogs::new(place.path(), "r");
    let folder = place.path().join("logs/r");
    let filters = [
        LogFilter {
            position: Some(3_000),
            ..LogFilter::default()
        },
        LogFilter {
            key: Some("key-3000".into()),
            ..LogFilter::default()
        },
        LogFilter {
            level: Some("error".into()),
            ..LogFilter::default()
        },
        LogFilter {
            since_ms: Some(3_000),
            until_ms: Some(3_001),
            ..LogFilter::default()
        },
    ];
    for filter in &filters {
        let bytes: u64 = numbers(&folder)
            .unwrap()
            .into_iter()
            .map(|number| {
                let size = fs::metadata(path(&folder, number)).unwrap().len();
                let index = index_path(&folder, number);
                let (stretches, _) = blocks::stretches(&index, size, filter).unwrap();
                stretches.iter().map(|one| one.end - one.start).sum::<u64>()
            })
            .sum();
        assert!(bytes < 512 << 10, "{filter:?}: {bytes} bytes to read");
        let (found, _) = all(&logs, newest(filter.clone(), 9));
        let found: Vec<_> = found.iter().map(|entry| entry.position).collect();
        assert_eq!(found, [Some(3_000)], "{filter:?}");
    }
    // Without an index, and with one that is damaged, it takes longer and is the same.
    for (at, number) in numbers(&folder).unwrap().into_iter().enumerate() {
        let index = index_path(&folder, number);
        if at % 2 == 0 {
            fs::remove_file(index).unwrap();
        } else {
            let mut bytes = fs::read(&index).unwrap();
            bytes.iter_mut().step_by(97).for_each(|byte| *byte ^= 1);
            bytes.truncate(bytes.len() - 1);
            fs::write(index, bytes).unwrap();
        }
    }
    let (found, _) = all(&logs, newest(filters[0].clone(), 9));
    assert_eq!(found.len(), 1);
}

#[test]
fn an_index_that_says_more_than_its_segment_holds_is_cut_back() {
    let place = tempfile::tempdir().unwrap();
    let mut kept = writer(place.path());
    let long = "x".repeat(1_000);
    for position in 0..200 {
        kept.write(1, &of_event(position, &long)).unwrap();
        kept.flush().unwrap();
    }
    drop(kept);
    // A power cut: the index had reached the disk, and the lines had not.
    let segment = place.path().join("logs/r/00000001.jsonl");
    OpenOptions::new()
        .write(true)
        .open(&segment)
        .unwrap()
        .set_len(10_000)
        .unwrap();
    let mut kept = writer(place.path());
    for _ in 0..200 {
        kept.write(2, &of_event(1_000, &long)).unwrap();
        kept.flush().unwrap();
    }
    let wanted = LogFilter {
        position: Some(1_000),
        ..LogFilter::default()
    };
    let logs = RunLogs::new(place.path(), "r");
    assert_eq!(all(&logs, newest(wanted, 50)).0.len(), 200);
}

#[test]
fn a_page_looks_through_so_much_and_says_where_to_go_on() {
    let place = tempfile::tempdir().unwrap();
    let mut kept = writer(place.path());
    let long = "x".repeat(10_000);
    for position in 0..1_000 {
        kept.write(position, &of_event(position, &long)).unwrap();
    }
    kept.flush().unwrap();
    let logs = RunLogs::new(place.path(), "r");
    let wanted = LogFilter {
        text: Some("y".into()),
        ..LogFilter::default()
    };
    for query in [
        newest(wanted.clone(), 9),
        LogQuery {
            filter: wanted,
            ..oldest(None, 9)
        },
    ] {
        let page = logs.page(&query).unwrap();
        assert_eq!(page.entries.len(), 0);
        assert!(page.next.is_some(), "there is more to look through");
        let (found, pages) = all(&logs, query);
        assert_eq!((found.len(), pages), (0, 3));
    }
}

#[test]
fn who_reads_while_segments_come_and_go_gets_each_line_once_or_hears_that_some_are_gone() {
    let place = tempfile::tempdir().unwrap();
    let (data_dir, count) = (place.path().to_owned(), 20_000);
    let writer = std::thread::spawn(move || {
        let mut kept = with_segments_of(&data_dir, 20_000);
        for position in 0..count {
            kept.write(position, &of_event(position, "x")).unwrap();
            if position % 3 == 0 {
                kept.flush().unwrap();
            }
        }
        kept.flush().unwrap();
    });
    let logs = RunLogs::new(place.path(), "r");
    let (mut query, mut next, mut gaps) = (oldest(Some(LogPlace::default()), 100), 0, 0);
    while next < count {
        let page = logs.page(&query).unwrap();
        for entry in page.entries {
            let position = entry.position.unwrap();
            if position != next {
                assert!(page.missed && position > next, "{position} after {next}");
                gaps += 1;
            }
            next = position + 1;
        }
        query.from = Some(page.after.parse().unwrap());
    }
    writer.join().unwrap();
    assert!(gaps < 1_000);
}

#[test]
fn a_segment_that_a_listing_has_passed_over_is_read_and_one_that_has_gone_is_missed() {
    let place = tempfile::tempdir().unwrap();
    let mut kept = with_segments_of(place.path(), 2_000);
    let mut position = 0;
    let folder = place.path().join("logs/r");
    while !path(&folder, 4).exists() {
        kept.write(position, &of_event(position, "x")).unwrap();
        kept.flush().unwrap();
        position += 1;
    }
    assert_eq!(
        reading::filled(vec![1, 2, 4, 5, 9]),
        (1..=9).collect::<Vec<_>>()
    );
    assert_eq!(reading::filled(vec![3, u64::MAX]), [3, u64::MAX]);
    let logs = RunLogs::new(place.path(), "r");
    let all = oldest(Some(LogPlace::default()), 1_000);
    let page = logs.page(&all).unwrap();
    assert_eq!((page.entries.len() as u64, page.missed), (position, false));
    fs::remove_file(path(&folder, 2)).unwrap();
    let page = logs.page(&all).unwrap();
    assert!(page.missed && page.entries.len() as u64 + 1 < position);
}

#[test]
fn b08_a_line_that_a_full_disk_does_not_take_is_lost_and_counted_and_the_next_is_whole() {
    let place = tempfile::tempdir().unwrap();
    let mut kept = writer(place.path());
    kept.write(1, &line("other", "one")).unwrap();
    let folder = place.path().join("logs/r");
    fs::create_dir_all(&folder).unwrap();
    std::os::unix::fs::symlink("/dev/full", path(&folder, 1)).unwrap();
    kept.write(1, &line("r", "two\nthree")).unwrap();
    kept.write(2, &line("r", "four")).unwrap();
    let error = kept.flush().unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::StorageFull);
    assert_eq!(kept.lost(), 3);
    // Another run's lines are written all the same, and there is room in another place.
    let logs = RunLogs::new(place.path(), "other");
    assert_eq!(texts(&logs.page(&oldest(None, 9)).unwrap()), ["one"]);
    let segment = kept.open.get_mut(&Some("r".into())).unwrap();
    fs::remove_file(path(&folder, 1)).unwrap();
    segment.file = append_to(&folder, 1).unwrap();
    // What a full disk took of a line before it said so.
    segment.file.write_all(b"{\"at_ms\":2,\"te").unwrap();
    kept.write(3, &line("r", "five")).unwrap();
    kept.flush().unwrap();
    let logs = RunLogs::new(place.path(), "r");
    assert_eq!(texts(&logs.page(&oldest(None, 9)).unwrap()), ["five"]);
    assert_eq!(kept.lost(), 3);
}

#[test]
fn b08_where_not_even_a_folder_can_be_made_lines_are_counted() {
    let place = tempfile::tempdir().unwrap();
    fs::write(place.path().join("logs"), "in the way").unwrap();
    let mut kept = writer(place.path());
    assert!(kept.write(1, &line("r", "one\ntwo")).is_err());
    assert_eq!(kept.lost(), 2);
}
