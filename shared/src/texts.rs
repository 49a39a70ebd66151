//! Every text that a person reads, in Japanese and in English, in one place. A text that lacks a
//! language does not compile.

use serde::{Deserialize, Serialize};

/// A language that people are spoken to in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Lang {
    /// Japanese, the default: the first users' language.
    #[default]
    Ja,
    /// English.
    En,
}

impl Lang {
    /// The language of a BCP 47 tag or a locale (`en-US`, `ja_JP.UTF-8`).
    #[must_use]
    pub fn of(tag: &str) -> Option<Self> {
        let tag = tag.trim().to_ascii_lowercase();
        if tag.starts_with("ja") {
            Some(Self::Ja)
        } else if tag.starts_with("en") {
            Some(Self::En)
        } else {
            None
        }
    }

    /// The first language of an Accept-Language header that is known here.
    #[must_use]
    pub fn accepted(header: &str) -> Option<Self> {
        header.split(',').find_map(|part| Self::of(part.split(';').next().unwrap_or_default()))
    }

    /// The tag of the `lang` attribute.
    #[must_use]
    pub fn tag(self) -> &'static str {
        match self {
            Self::Ja => "ja",
            Self::En => "en",
        }
    }
}

macro_rules! texts {
    ($($key:ident: $ja:literal, $en:literal;)*) => {
        /// One text.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum Text {
            $(#[doc = concat!("`", $en, "`")] $key,)*
        }

        impl Text {
            /// Every text.
            pub const ALL: &'static [Self] = &[$(Self::$key,)*];

            /// The text in a language.
            #[must_use]
            pub fn in_lang(self, lang: Lang) -> &'static str {
                match (self, lang) {
                    $((Self::$key, Lang::Ja) => $ja, (Self::$key, Lang::En) => $en,)*
                }
            }
        }
    };
}

texts! {
    DashboardTitle: "運用監視ダッシュボード", "Operations dashboard";
    LastUpdate: "最終更新", "Last update";
    Nodes: "ノード", "Nodes";
    Gpu: "GPU", "GPU";
    Worker: "ワーカー", "Worker";
    State: "状態", "State";
    Utilization: "使用率", "Utilisation";
    Memory: "メモリ", "Memory";
    Power: "電力", "Power";
    Temperature: "温度", "Temperature";
    Cpu: "CPU", "CPU";
    Restarts: "再起動回数", "Restarts";
    Pid: "PID", "PID";
    RecentAlerts: "最近のアラート", "Recent alerts";
    NoAlerts: "アラートはありません", "No alerts";
    NoData: "データなし", "No data";
    Ok: "正常", "OK";
    Warning: "注意", "Warning";
    Critical: "異常", "Critical";
    Live: "受信中", "Live";
    Stale: "応答なし", "No frames";
    NeverSeen: "未接続", "Never seen";
    Ready: "稼働中", "Ready";
    NotReady: "停止・応答不良", "Not ready";
    Loading: "起動中", "Loading";
    Backlog: "未送信", "Unsent";
    Link: "接続", "Link";
    LinkUp: "接続中", "connected";
    LinkDown: "切断", "not connected";
    Agent: "エージェント", "Agent";
    Simulated: "SIMULATED (模擬GPU)", "SIMULATED (fake GPU)";
    SimulatedExplained: "このノードのGPU値は模擬NVMLによるものです", "GPU values of this node come from a fake NVML";
    Firing: "発生", "Firing";
    AutoRestart: "自動再起動", "automatic restart";
    Recovered: "復旧完了", "Recovered";
    SentAgain: "再送", "sent again";
    NoDriver: "NVIDIAドライバなし", "No NVIDIA driver";
    DriverUnresponsive: "GPUドライバ応答なし", "GPU driver does not answer";
    Severity: "重大度", "Severity";
    StartedAt: "発生時刻", "Started";
    ResolvedAt: "復旧時刻", "Resolved";
    Target: "対象", "Target";
    ActionTaken: "自動対応", "Action taken";
    NothingConfigured: "ワーカーは設定されていません", "No workers are configured";
    WaitingForNodes: "まだどのノードからもデータがありません。エージェントの [aggregator] endpoints と証明書を確認してください", "No node has sent data yet. Check [aggregator] endpoints and the certificate of the agents";
    SlackStandin: "Slackの代役 (模擬)", "Slack stand-in (simulated)";
    NoMessages: "メッセージはありません", "No messages";
    // What the command line says.
    Queue: "キュー", "Queue";
    Estimated: "推定", "estimated";
    // What `diarwatch top` says.
    TopTitle: "ライブ表示", "live";
    // What `diarwatch doctor` says.
    DoctorTitle: "診断", "diagnosis";
    // What the page says.
    ServiceStatus: "サービスステータス", "Service status";
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_text_is_empty_in_any_language() {
        for text in Text::ALL {
            for lang in [Lang::Ja, Lang::En] {
                assert!(!text.in_lang(lang).trim().is_empty(), "{text:?} has no text in {lang:?}");
            }
        }
    }

    #[test]
    fn a_browser_gets_the_first_language_it_asks_for() {
        assert_eq!(Lang::accepted("fr-FR, en;q=0.8, ja;q=0.7"), Some(Lang::En));
        assert_eq!(Lang::accepted("fr"), None);
        assert_eq!(Lang::of("ja_JP.UTF-8"), Some(Lang::Ja));
    }
}
