//! Which numbers of `metrics.jsonl` are drawn, in which charts.

use super::chart::{Chart, Series};
use super::html::{Node, element, plain, text};
use super::log::{Entry, Log};

/// A chart of numbers that this program writes.
struct Known {
    title: &'static str,
    /// What is drawn upwards, with its unit.
    y: &'static str,
    note: &'static str,
    /// (phase, name, name in the legend).
    series: &'static [(&'static str, &'static str, &'static str)],
}

const KNOWN: &[Known] = &[
    Known {
        title: "Predictive score of observations",
        y: "CRPS",
        note: "Of what the prior predicts of held-out (y, A): lower is better, as for KL(p(y) ‖ q(y)). It needs no truth; zero is no \
               bound.",
        series: &[("lap", "crps", "held out")],
    },
    Known {
        title: "Sliced Wasserstein distance of observations",
        y: "squared distance",
        note: "Held-out (y, A) against (A x + noise, A), x from the prior; at the floor where the prior is right, and where there are too \
               few observations to tell.",
        series: &[("lap", "sliced_wasserstein", "held out"), ("lap", "sliced_wasserstein_floor", "floor")],
    },
    Known {
        title: "Frechet distance",
        y: "squared distance",
        note: "Samples of the prior against clean images, in a fixed feature space.",
        series: &[("lap", "frechet", "prior")],
    },
    Known {
        title: "Sinkhorn figure of the prior",
        y: "OT(u, v) - OT(u, u′)",
        note: "The paper's figure, squared distance and λ = 1e-3: v the prior, u and u′ halves of the truth.",
        series: &[("lap", "sinkhorn", "prior")],
    },
    Known {
        title: "PSNR of the posterior mean",
        y: "dB",
        note: "On held-out observations.",
        series: &[("lap", "psnr", "held out")],
    },
    Known {
        title: "Residual of the draws",
        y: "χ² per measurement",
        note: "‖y - A x‖²/(M σ²): 1 on average for exact draws. A check of consistency, no evidence.",
        series: &[("lap", "chi2", "held out"), ("sample", "chi2", "all")],
    },
    Known {
        title: "Variance of the prior",
        y: "variance per element",
        note: "Along poorly observed directions, discretisation shrinks it a little in every lap.",
        series: &[("lap", "variance", "all elements"), ("lap", "variance_unobserved", "least observed")],
    },
    Known {
        title: "Denoising loss",
        y: "weighted squared error",
        note: "(1/σ² + 1)(d(x + σ z, σ) - x)², mean over elements.",
        series: &[("train", "loss", "training"), ("train", "held_out_loss", "held out, moving average")],
    },
    Known { title: "Gradient norm", y: "before clipping", note: "", series: &[("train", "gradient_norm", "gradient")] },
    Known { title: "Learning rate", y: "per step", note: "", series: &[("train", "lr", "learning rate")] },
    Known {
        title: "Log-evidence of the Gaussian prior",
        y: "nats per observation",
        note: "Exact; closed-form updates never lower it.",
        series: &[("gaussian", "log_evidence", "evidence")],
    },
];

/// Numbers that a table has, or another chart.
const TABLED: [(&str, &str); 6] = [
    ("sample", "images_per_second"),
    ("sample", "breakdowns"),
    ("sample", "dropped"),
    ("sample", "failures"),
    ("lap", "prior_failures"),
    ("lap", "held_out_loss"),
];

/// All charts that have a point.
pub fn node(log: &Log) -> Node {
    let known = KNOWN.iter().map(|known| chart(log, known));
    let drawn = |phase: &str, name: &str| {
        KNOWN.iter().flat_map(|k| k.series).any(|(p, n, _)| (*p, *n) == (phase, name))
            || TABLED.contains(&(phase, name))
    };
    let others = ["gaussian", "train", "sample", "lap"].into_iter().flat_map(|phase| {
        let names = log.names(phase).into_iter().filter(move |name| !drawn(phase, name));
        names.map(move |name| other(log, phase, name))
    });
    let charts: Vec<Node> = known.chain(others).filter_map(|chart| chart.node()).collect();
    if charts.is_empty() {
        return plain("p", text("Nothing has been measured yet."));
    }
    element("div", &[("class", &"charts")], charts.into_iter().collect::<Node>())
}

fn chart(log: &Log, known: &Known) -> Chart {
    let series = known
        .series
        .iter()
        .map(|(phase, name, legend)| Series { name: (*legend).to_owned(), points: points(log, phase, name) });
    let features = log.of("lap").filter_map(|entry| entry.word("frechet_features")).last();
    let features = features.filter(|_| known.series[0].1 == "frechet").map(|name| format!(" ({name})"));
    Chart {
        title: format!("{}{}", known.title, features.unwrap_or_default()),
        note: known.note.to_owned(),
        x: axis(known.series[0].0).to_owned(),
        y: known.y.to_owned(),
        series: series.filter(|s| !s.points.is_empty()).collect(),
    }
}

/// A number that this program does not know.
fn other(log: &Log, phase: &str, name: &str) -> Chart {
    let series = vec![Series { name: name.to_owned(), points: points(log, phase, name) }];
    let (title, x) = (name.replace('_', " "), axis(phase).to_owned());
    Chart { title, note: format!("Of phase {phase}."), x, y: name.to_owned(), series }
}

fn axis(phase: &str) -> &'static str {
    if phase == "gaussian" { "iteration" } else { "lap" }
}

/// The values of a number, over the laps; epochs are fractions of the lap that they lead to.
fn points(log: &Log, phase: &str, name: &str) -> Vec<(f64, f64)> {
    let epochs = log.of("train").filter_map(|entry| entry.step).max().unwrap_or(1).max(1);
    let at = |entry: &Entry| match phase {
        "gaussian" => entry.step.unwrap_or(0) as f64,
        "train" => entry.lap as f64 - 1.0 + entry.step.unwrap_or(epochs) as f64 / epochs as f64,
        _ => entry.lap as f64,
    };
    log.of(phase).filter_map(|entry| Some((at(entry), entry.number(name)?))).collect()
}
