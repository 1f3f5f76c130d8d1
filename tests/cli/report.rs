//! `diem report` on runs that are complete, interrupted, damaged or none.

use super::*;
use diem::backend::Shape;
use diem::data::picture::{self, Tile};
use diem::data::{Array, npy};

/// What begins a tag, an attribute and a script, if it is not escaped.
const HOSTILE: &str = "</pre><script>alert('x')</script>\"onload=&lt;";

/// A run directory as `diem fit` leaves it in lap `lap` of 3.
fn fixture(home: &Home, lap: usize) {
    let write = |name: &str, text: String| fs::write(home.path(&format!("run/{name}")), text).unwrap();
    fs::create_dir(home.path("run")).unwrap();
    write("config.toml", format!("seed = 7\nname = '''{HOSTILE}'''\n[laps]\ncount = 3\n"));
    let state =
        serde_json::json!({"identity": {"version": "0.1.0", "arithmetic": HOSTILE}, "lap": lap, "phase": "train"});
    write("state.json", state.to_string());
    let mut metrics = String::new();
    for k in 0..4 {
        metrics += &format!(
            "{{\"phase\": \"gaussian\", \"lap\": 0, \"iteration\": {k}, \"log_evidence\": {}}}\n",
            2 - 10 / (k + 1)
        );
    }
    for k in 0..lap {
        let epochs = if k == 0 { 0 } else { 4 };
        for epoch in 1..=epochs {
            let loss = 1.0 / (k * 4 + epoch) as f64;
            metrics += &format!(
                "{{\"phase\": \"train\", \"lap\": {k}, \"epoch\": {epoch}, \"step\": {epoch}, \"loss\": {loss}, \"held_out_loss\": {}, \
                 \"gradient_norm\": 0.5, \"lr\": 2e-4, \"seconds\": 30.5}}\n",
                loss + 0.1
            );
        }
        metrics += &format!(
            "{{\"phase\": \"sample\", \"lap\": {k}, \"seconds\": 61.0, \"images_per_second\": 5.25, \"breakdowns\": {k}, \"dropped\": 0, \
             \"failures\": 0, \"chi2\": 1.02}}\n"
        );
        let chi2 = if k == 2 { "null".to_owned() } else { format!("{}", 1.0 + 0.1 / (k + 1) as f64) };
        metrics += &format!(
            "{{\"phase\": \"lap\", \"lap\": {k}, \"sliced_wasserstein\": {}, \"chi2\": {chi2}, \"frechet\": {}, \
             \"frechet_features\": \"FD-garments\", \"psnr\": 21.5, \"variance\": 0.9, \"a<b\": 3, \"seconds\": 250}}\n",
            0.1 / (k + 1) as f64,
            90.0 / (k + 1) as f64
        );
        let folder = home.path(&format!("run/lap-{k:03}"));
        fs::create_dir(&folder).unwrap();
        let x: Vec<f32> = (0..6 * 64).map(|i| (i as f32).sin()).collect();
        let tiles: Vec<_> = x.chunks(64).map(Tile::Image).collect();
        let grid = picture::grid(Shape::new(1, 8, 8, 1), &[tiles]);
        ["preview.png", "prior.png"].iter().for_each(|name| picture::write(&folder.join(name), &grid).unwrap());
        npy::write(&folder.join("samples.npy"), &Array::f32(&[6, 8, 8, 1], x)).unwrap();
        if k > 0 {
            fs::write(folder.join("model.safetensors"), "weights").unwrap();
        }
    }
    write("metrics.jsonl", metrics);
}

/// Every tag is closed in order, every attribute quoted, and nothing is fetched or run.
fn check_page(html: &str) {
    assert!(html.starts_with("<!DOCTYPE html>"));
    assert!(!html.chars().any(|c| c.is_control() && c != '\n' && c != '\t'));
    let (mut open, mut rest) = (Vec::new(), html);
    while let Some(start) = rest.find('<') {
        let end = start + rest[start..].find('>').expect("a tag ends");
        let tag = &rest[start + 1..end];
        rest = &rest[end + 1..];
        if let Some(name) = tag.strip_prefix('/') {
            assert_eq!(open.pop(), Some(name), "before {:?}", &rest[..rest.len().min(80)]);
        } else if !tag.starts_with('!') {
            let (name, attributes) = tag.split_once(' ').unwrap_or((tag, ""));
            assert!(name.chars().all(|c| c.is_ascii_alphanumeric()), "{tag}");
            assert_ne!(name, "script");
            assert_ne!(name, "link");
            check_attributes(attributes);
            if !["meta", "img", "br"].contains(&name) {
                open.push(name);
            }
        }
    }
    assert_eq!(open, Vec::<&str>::new());
    assert!(!html.contains("http:") && !html.contains("https:") && !html.contains("url(") && !html.contains("@import"));
}

/// `name="value" ..`, without events, and with no address that leaves the file.
fn check_attributes(attributes: &str) {
    let mut rest = attributes;
    while let Some((name, after)) = rest.split_once("=\"") {
        let (value, after) = after.split_once('"').expect("a closing quote");
        let name = name.trim();
        assert!(name.chars().all(|c| c.is_ascii_alphanumeric() || c == '-') && !name.starts_with("on"), "{name}");
        match name {
            "src" => assert!(value.starts_with("data:image/png;base64,"), "{value}"),
            "href" => assert!(value.starts_with('#'), "{value}"),
            _ => {}
        }
        rest = after;
    }
    assert_eq!(rest.trim(), "", "in {attributes}");
}

fn page(home: &Home, path: &str) -> String {
    let html = String::from_utf8(home.read(path)).unwrap();
    check_page(&html);
    html
}

const SECTIONS: [&str; 8] = ["state", "results", "curves", "pictures", "moments", "timings", "configuration", "again"];

#[test]
fn a_complete_run_has_every_section() {
    let home = Home::new();
    fixture(&home, 4);
    assert_eq!(home.run("report run").trim(), "run/report.html");
    let html = page(&home, "run/report.html");
    for id in SECTIONS {
        assert!(html.contains(&format!("<section id=\"{id}\">")) && html.contains(&format!("href=\"#{id}\"")), "{id}");
    }
    for part in [
        "complete: 3 laps",
        "Frechet distance (FD-garments)",
        "nats per observation",
        "1 values are not finite", // χ² of lap 2
        "held out, moving average",
        "Of phase lap.", // a number that the program does not know
        "a&lt;b",
        "Lap 3: draws of posteriors",
        "diem fit run/config.toml --out run-again",
        "M step: training, min",
    ] {
        assert!(html.contains(part), "{part}");
    }
    let escaped = "&lt;/pre&gt;&lt;script&gt;alert(&#39;x&#39;)&lt;/script&gt;&quot;onload=&amp;lt;";
    assert_eq!(html.matches(escaped).count(), 2); // in the configuration, and in the state
    assert!(!html.contains("Missing or not readable"));
    let pictures = html.matches("<img ").count();
    assert_eq!(pictures, 4 + 4 + 2); // previews, samples of the prior, moments
    home.run("report run"); // an earlier report is replaced
    assert_eq!(page(&home, "run/report.html"), html);
}

#[test]
fn an_interrupted_run_says_where_it_stands() {
    let home = Home::new();
    fixture(&home, 2);
    fs::remove_file(home.path("run/lap-001/model.safetensors")).unwrap();
    fs::write(home.path("run/lap-001/prior.png"), "no picture").unwrap();
    let mut metrics = home.read("run/metrics.jsonl");
    metrics.extend(b"{\"phase\": \"tr\xffain\", \"lap\"\n[3]\n{\"phase\": \"train\", \"lap\": 2, \"epo");
    fs::write(home.path("run/metrics.jsonl"), metrics).unwrap();
    let out = home.run("report run --out r.html");
    let html = page(&home, "r.html");
    for part in ["in lap 2 of 3, the M step: training; not running", "To go on with this run:"] {
        assert!(html.contains(part), "{part}");
    }
    for part in
        ["lap-001/model.safetensors is missing", "prior.png: expected a PNG", "line 13: ", "line 14: ", "unfinished"]
    {
        assert!(html.contains(part) && out.contains(part), "{part}: {out}");
    }
}

#[test]
fn a_run_that_has_hardly_begun_still_has_a_page() {
    let home = Home::new();
    fs::create_dir(home.path("run")).unwrap();
    fs::write(home.path("run/config.toml"), "laps = = 3\n").unwrap();
    home.run("report run");
    let html = page(&home, "run/report.html");
    for part in
        ["config.toml is no TOML", "state.json is missing", "metrics.jsonl is missing", "Nothing has been measured yet"]
    {
        assert!(html.contains(part), "{part}");
    }
    fs::write(home.path("run/state.json"), "{").unwrap();
    home.run("report run");
    assert!(page(&home, "run/report.html").contains("state.json is no JSON"));
}

#[test]
fn a_run_of_sample_has_a_page_too() {
    let home = Home::new();
    home.observe();
    home.run(
        "sample --model MODEL --observations y.npz --operator mask --draws 2 --sampler 2m-sde --steps 2 --batch 1 --out s",
    );
    home.run("report s");
    let html = page(&home, "s/report.html");
    for part in [
        "complete: 4 samples",
        "diem sample --model ",
        "--draws 2",
        "sampler.steps",
        "images_per_second",
        "Standard deviation.",
    ] {
        assert!(html.contains(part), "{part}");
    }
    assert_eq!(html.matches("<img ").count(), 3);
}

#[test]
fn an_interrupted_run_of_sample_says_how_far_it_is() {
    let home = Home::new();
    fs::create_dir(home.path("s")).unwrap();
    let failure = "{\"sample\": 1, \"step\": 4, \"layer\": \"<stem>\"}";
    let journal = format!(
        "{{\"command\": \"sample\", \"shape\": [9, 8, 8, 1]}}\n{{\"samples\": 2, \"seconds\": 1.5, \"breakdowns\": 3, \"failures\": [{failure}]}}\nbroken\n"
    );
    fs::write(home.path("s/progress.jsonl"), journal).unwrap();
    home.run("report s");
    let html = page(&home, "s/report.html");
    for part in ["2 of 9 samples are done", "progress.jsonl, line 3", "&lt;stem&gt;", "the run is not complete"] {
        assert!(html.contains(part), "{part}");
    }
}

#[test]
fn what_is_no_run_is_refused_and_nothing_foreign_is_replaced() {
    let home = Home::new();
    fixture(&home, 1);
    fs::create_dir(home.path("other")).unwrap();
    fs::write(home.path("other/notes.html"), "precious").unwrap();
    let before = home.everything(".");
    for (line, part) in [
        ("report", "<RUN>"),
        ("report nowhere", "nowhere: cannot read"),
        ("report other", "other: expected a folder of diem fit or diem sample, found another"),
        ("report run/config.toml", "config.toml: cannot read"),
        ("report run --out other/notes.html", "expected no such file yet, or an earlier report (or --force)"),
        ("report run --out nowhere/r.html", "nowhere/r.html: cannot write"),
    ] {
        let refusal = home.refuse(line);
        assert!(refusal.contains(part), "{line}: {refusal}");
    }
    assert_eq!(home.everything("."), before);
    home.run("report run --out other/notes.html --force");
    page(&home, "other/notes.html");
}
