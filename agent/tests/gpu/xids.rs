//! Errors that the driver reports by itself, and what it wants done.

use std::time::Duration;

use diarwatch_shared::clock;
use diarwatch_shared::event::{RecoveryAction, What, XidAction};
use serde_json::Value;

use super::common::{Agent, Kept, Node, diarwatch};
use super::{gpu, up, with, xid};

fn until_xids(agent: &Agent, count: usize) -> Vec<Value> {
    agent.until(&format!("{count} XIDs are told"), |status| {
        status["xids"].as_array().filter(|xids| xids.len() == count).cloned()
    })
}

/// The events come from threads that register first: one is sent again until it is seen.
fn first_xid(node: &Node, agent: &Agent) -> Value {
    let mut seq = 0;
    agent.until("an XID is told", |status| {
        seq += 1;
        if seq % 25 == 1 {
            node.scenario(&with(&format!("event.{seq} = 0 xid 63")));
        }
        status["xids"].as_array()?.first().cloned()
    })
}

#[test]
fn an_xid_is_an_event_within_a_second_and_counted_from_zero() {
    let node = Node::new().with_gpus(super::TWO);
    let agent = node.run();
    up(&agent);
    assert_eq!(first_xid(&node, &agent)["action"], "ignore");
    node.scenario(&with("event.1000 = 1 xid 79\ngpu.1.recovery = 2"));
    let began = clock::uptime();
    let told = until_xids(&agent, 2).remove(1);
    // The promise is a second; on a busy machine the figure is read, it does not decide.
    println!("an XID was told after {:?}", clock::uptime().saturating_sub(began));
    assert_eq!((&told["gpu"], &told["uuid"], &told["code"]), (&1.into(), &"GPU-bbbb".into(), &79.into()));
    assert_eq!((&told["action"], &told["pid"]), (&"reboot".into(), &Value::Null));
    assert_eq!(told["text"], "GPU has fallen off the bus");
    let socket = node.path("agent.sock").display().to_string();
    for (lang, word) in [("en", "reboot the node"), ("ja", "ノードの再起動")] {
        let text = diarwatch(&["events", "--socket", &socket, "--lang", lang]);
        let text = String::from_utf8(text.stdout).unwrap();
        assert!(text.contains("XID 79") && text.contains(word), "{text}");
    }
    agent.stop();
    let mut kept = Kept::of(&node);
    let events: Vec<What> = kept.events().into_iter().filter(xid).collect();
    assert_eq!(events.len(), 2, "{events:?}");
    assert!(matches!(&events[1], What::GpuXid { gpu: Some(1), code: 79, action: XidAction::Reboot, .. }));
    let of = |uuid: &str| ("uuid".to_owned(), uuid.to_owned());
    let counts = |uuid: &str, kept: &mut Kept| -> Vec<f64> {
        kept.labelled("gpu_xid_errors_total", &of(uuid))
            .into_iter()
            .map(|(_, count)| count.unwrap())
            .collect()
    };
    let (first, second) = (counts("GPU-aaaa", &mut kept), counts("GPU-bbbb", &mut kept));
    assert_eq!((first[0], *first.last().unwrap()), (0.0, 1.0));
    assert_eq!((second[0], *second.last().unwrap()), (0.0, 1.0));
    assert_eq!(kept.labelled("gpu_action_wanted", &of("GPU-bbbb")).last().unwrap().1, Ok(2.0));
}

#[test]
fn what_the_driver_wants_wins_over_the_table_and_a_change_of_it_is_an_event() {
    let node = Node::new().with_gpus(super::TWO);
    let agent = node.run();
    assert_eq!(gpu(&up(&agent), 0)["recovery_action"], "none");
    first_xid(&node, &agent);
    // The GPU is well, says the driver: what is left is the worker that it hit.
    node.scenario(&with("event.1000 = 0 xid 119"));
    assert_eq!(until_xids(&agent, 2)[1]["action"], "restart_worker");
    node.scenario(&with("event.1001 = 0 recovery 0\ngpu.0.recovery = 1"));
    agent.until("a reset is wanted", |status| {
        (gpu(status, 0)["recovery_action"] == "gpu_reset").then_some(())
    });
    assert_eq!(gpu(&agent.status(), 1)["recovery_action"], "none");
    node.scenario(&with("event.1002 = 0 xid 31\ngpu.0.recovery = 1"));
    assert_eq!(until_xids(&agent, 3)[2]["action"], "reset_gpu");
    let socket = node.path("agent.sock").display().to_string();
    let text = diarwatch(&["status", "--socket", &socket, "--lang", "en"]);
    assert!(String::from_utf8(text.stdout).unwrap().contains("GPU 0: GPU recovery: reset the GPU"));
    node.scenario(&with("event.1003 = 0 recovery 0"));
    agent.until("nothing is wanted", |status| (gpu(status, 0)["recovery_action"] == "none").then_some(()));
    agent.stop();
    let changes: Vec<RecoveryAction> = Kept::of(&node)
        .events()
        .into_iter()
        .filter_map(|what| match what {
            What::GpuRecoveryAction { gpu: 0, action, .. } => Some(action),
            _ => None,
        })
        .collect();
    assert_eq!(changes, [RecoveryAction::GpuReset, RecoveryAction::None]);
}

#[test]
fn without_the_drivers_word_the_table_holds_and_the_configuration_overrides_it() {
    let mut node = Node::new().with_gpus(&with("gpu.*.recovery = unsupported"));
    node.more.push_str("xid_overrides = { \"64\" = \"isolate\" }\n");
    let agent = node.run();
    let told = |agent: &Agent, code: u32| {
        let mut seq = u64::from(code) * 1_000;
        agent.until("the XID is told", |status| {
            seq += 1;
            if seq % 25 == 1 {
                node.scenario(&with(&format!("gpu.*.recovery = unsupported\nevent.{seq} = 0 xid {code}")));
            }
            let xids = status["xids"].as_array()?;
            xids.iter().find(|xid| xid["code"] == code).map(|xid| xid["action"].clone())
        })
    };
    assert_eq!(told(&agent, 64), "isolate");
    assert_eq!(told(&agent, 119), "reset_gpu");
    assert_eq!(told(&agent, 9_999), "unknown");
    agent.stop();
    let uuid = ("uuid".to_owned(), "GPU-aaaa".to_owned());
    let wanted = Kept::of(&node).labelled("gpu_action_wanted", &uuid);
    assert!(wanted[0].1.is_err(), "what no driver says is not 0: {wanted:?}");
    assert_eq!(wanted.last().unwrap().1, Ok(3.0), "the worst of what was told stays");
}

#[test]
fn a_driver_that_reports_nothing_loses_no_value() {
    let node = Node::new().with_gpus(&with("call.nvmlDeviceRegisterEvents = err:3"));
    let agent = node.run();
    up(&agent);
    agent.until("it is said in the log", |_| agent.log().contains("nvmlDeviceRegisterEvents").then_some(()));
    assert_eq!(agent.status()["driver"]["state"], "up");
}

#[test]
fn a_wait_for_reports_that_hangs_holds_nothing_up() {
    let node = Node::new().with_gpus(&with("call.nvmlEventSetWait_v2 = hang"));
    let agent = node.run();
    up(&agent);
    let began = clock::uptime();
    agent.until("three seconds have passed", |status| {
        assert_eq!(status["driver"]["state"], "up");
        (clock::uptime().saturating_sub(began) > Duration::from_secs(3)).then_some(())
    });
    assert!(gpu(&agent.status(), 0)["utilization_ratio"].is_f64());
}
