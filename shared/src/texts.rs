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
    Unknown: "不明", "Unknown";
    Name: "名前", "Name";
    Uuid: "UUID", "UUID";
    MemoryTraffic: "メモリ帯域", "Mem I/O";
    Util: "使用率", "Util";
    Temp: "温度", "Temp";
    Part: "割合", "Used";
    LastSeconds: "直近", "Last 6s";
    NoGpus: "GPUはありません", "No GPUs";
    Service: "サービス", "Service";
    Uptime: "稼働時間", "Uptime";
    NextStart: "再起動まで", "Next start";
    Probe: "確認時間", "Probe";
    ProbeVerdict: "確認結果", "Last probe";
    LastExit: "前回の終了", "Last exit";
    WaitsForStart: "再起動待ち", "Restarting";
    QueueWaiting: "待ち", "Waiting";
    QueueProcessing: "処理中", "Running";
    QueueOldest: "最長待ち", "Oldest";
    PerMinute: "件/分", "Per min";
    FailedPerMinute: "失敗/分", "Failed/min";
    JobMean: "平均", "Mean";
    JobP95: "P95", "P95";
    PerAudioHour: "音声1時間", "Audio hour";
    DrainsIn: "消化まで", "Drains in";
    Growing: "増加中", "Growing";
    NoQueues: "キューは設定されていません", "No queues are configured";
    Source: "取得元", "Source";
    Problem: "問題", "Problem";
    Time: "時刻", "Time";
    Event: "出来事", "Event";
    Detail: "詳細", "Detail";
    NoEvents: "出来事はありません", "Nothing happened";
    RecentProblems: "最近の問題", "Recent problems";
    Series: "系列", "Series";
    Labels: "ラベル", "Labels";
    Value: "値", "Value";
    Key: "キー", "Key";
    Origin: "由来", "Origin";
    Line: "行", "Line";
    ReloadRefused: "再読み込みを拒否しました", "The last reload was refused";
    Node: "ノード", "Node";
    LastSeen: "最終受信", "Last seen";
    FramesLost: "失われたフレーム", "Frames lost";
    Spool: "スプール", "Spool";
    Pending: "保留", "Pending";
    DriverStarting: "GPUドライバ確認中", "Waiting for the GPU driver";
    EventAgentStarted: "エージェント起動", "Agent started";
    EventWorkerStarted: "ワーカー起動", "Worker started";
    EventWorkerReady: "ワーカー稼働", "Worker ready";
    EventWorkerNotReady: "ワーカー応答不良", "Worker not ready";
    EventWorkerStartOverdue: "ワーカー起動遅延", "Worker start overdue";
    EventWorkerExited: "ワーカー終了", "Worker exited";
    EventDriverRecovered: "GPUドライバ復旧", "GPU driver answers again";
    LoadTime: "読み込み", "loaded in";
    DownTime: "停止時間", "down for";
    WaitedTime: "経過", "waited";
    // What `diarwatch top` says.
    TopNoAnswer: "エージェント応答なし", "The agent does not answer";
    TopFor: "経過", "for";
    TopStale: "古い値", "old values";
    TopPaused: "一時停止中", "paused";
    TopTooSmall: "画面が小さすぎます", "The terminal is too small";
    TopNeeds: "必要", "needs";
    TopNow: "現在", "has";
    TopEvents: "出来事", "Events";
    TopGpusOff: "GPUの監視は設定で無効です ([gpu] enabled)", "GPUs are switched off in the configuration ([gpu] enabled)";
    TopDriver: "ドライバ", "Driver";
    TopDrain: "消化まで", "Drain";
    TopRestarts: "再起動", "Restarts";
    TopQuit: "終了", "quit";
    TopPause: "停止", "pause";
    TopSpace: "空白", "space";
    TopHelp: "ヘルプ", "help";
    TopMove: "移動", "move";
    TopZoom: "拡大", "zoom";
    TopSpan: "時間幅", "span";
    TopHelpQuit: "終了します", "ends it";
    TopHelpPause: "表示を止める / 再開する", "holds the picture, and lets it go on";
    TopHelpTab: "次 / 前の区画へ", "to the next / the previous pane";
    TopHelpArrows: "GPUを選ぶ、行を送る", "choose a GPU, scroll lines";
    TopHelpPanes: "GPU / ワーカー / キュー / 出来事へ", "to GPUs / workers / queues / events";
    TopHelpZoom: "区画を画面いっぱいに / 元に戻す", "the pane takes the whole screen, and back";
    TopHelpSpan: "表の線の幅: 1列0.1秒 / 全体で1分", "lines: a minute in all, or 0.1 s a column";
    TopHelpShapes: "● 正常  ▲ 注意  ■ 異常  ○ 不明", "● OK  ▲ Warning  ■ Critical  ○ Unknown";
    TopHelpReadOnly: "表示だけで、何も変更しません", "It only shows; nothing is changed from here";
    TopHelpBack: "どのキーでも戻ります", "any key goes back";
    // What `diarwatch doctor` says.
    DoctorTitle: "診断", "diagnosis";
    // What the page says.
    ServiceStatus: "サービスステータス", "Service status";
    ApiResponseTime: "APIレスポンスタイム (P95)", "API response time (P95)";
    ErrorRate: "エラー率", "Error rate";
    Sessions: "同時セッション数", "Concurrent sessions";
    ProcessingQueue: "pyannote 処理キュー", "pyannote processing queue";
    FleetGrid: "GPU一覧", "GPU fleet";
    MonitorItself: "監視システム自身", "The monitor itself";
    Current: "現在", "Now";
    PeakToday: "ピーク(今日)", "Peak (today)";
    Waiting: "待機中", "Waiting";
    Processing: "処理中", "Processing";
    Tasks: "タスク", "jobs";
    MeanJobTime: "平均処理時間", "Mean processing time";
    P95JobTime: "処理時間 P95", "Processing time P95";
    OldestWait: "最長待ち時間", "Oldest wait";
    GpuUtilization: "GPU使用率", "GPU utilisation";
    QueueGrowing: "増え続けています", "only grows";
    QueueUnreachable: "取得元が応答しません", "its source does not answer";
    PartOfNodes: "一部のキューはデータなし", "some queues have no data";
    HighLoad: "高負荷", "high load";
    MemoryHigh: "メモリ逼迫", "memory nearly full";
    ServiceDown: "停止", "down";
    NotReachedFrom: "応答がないノード", "not reached from";
    ProcessEnded: "プロセス終了", "Process ended";
    ProcessStarted: "プロセス起動", "Process started";
    StartOverdue: "起動に時間がかかっています", "Start takes longer than it may";
    AgentStarted: "エージェント起動", "Agent started";
    DriverRecovered: "GPUドライバ復旧", "GPU driver answers again";
    UnknownEvent: "新しい版のイベント", "Event of a later version";
    Since: "{} から", "since {}";
    Ago: "{} 秒前", "{} s ago";
    StreamLive: "ライブ", "live";
    StreamStale: "{} 秒間更新なし", "no update for {} s";
    StreamOff: "自動更新なし", "no live updates";
    SkipToContent: "本文へ移動", "Skip to content";
    WarningFrom: "警告 {} 以上", "warning from {}";
    CriticalFrom: "異常 {} 以上", "critical from {}";
    HintServices: "aggregator.toml の [page] services と agent.toml の [[service]] に設定してください", "Set [page] services in aggregator.toml and [[service]] in agent.toml";
    HintFigure: "agent.toml の [[figure]] に metric = \"{}\" を設定してください", "Set [[figure]] with metric = \"{}\" in agent.toml";
    HintQueue: "agent.toml に [[queue]] を設定してください", "Set [[queue]] in agent.toml";
    FramesStored: "保存フレーム", "Frames stored";
    FramesDuplicate: "重複フレーム", "Duplicate frames";
    SeriesInMemory: "メモリ内の系列", "Series in memory";
    MessagesWaiting: "送信待ち通知", "Messages waiting";
    MessagesAccepted: "送信済み通知", "Messages accepted";
    MessagesGivenUp: "断念した通知", "Messages given up";
    OpenStreams: "ライブ接続", "Live streams";
    CutStreams: "切断した接続", "Streams cut";
    NoProblems: "問題はありません", "No problems";
    Events: "イベント", "Events";
    Last15Minutes: "直近15分", "Last 15 minutes";
    AllNodes: "全ノード", "All nodes";
    AndMore: "他 {} 件", "{} more";
    Least: "最小", "least";
    Largest: "最大", "largest";
    UnknownNode: "そのようなノードはありません", "No such node";
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
