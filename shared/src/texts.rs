//! Every text that a person reads, in Japanese and in English, in one place; what is said of a worker's
//! supervision stands in [`workers`]. A text that lacks a language does not compile.

use std::fmt::Display;

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

/// A text with values in the places of `{0}`, `{1}`, ...; a place without a value is left empty.
#[must_use]
pub fn fill(text: &str, values: &[&dyn Display]) -> String {
    let mut parts = text.split('{');
    let mut filled = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let (place, rest) = part.split_once('}').unwrap_or((part, ""));
        let value = place.parse::<usize>().ok().and_then(|place| values.get(place));
        filled.push_str(&value.map_or_else(String::new, ToString::to_string));
        filled.push_str(rest);
    }
    filled
}

macro_rules! texts {
    ($name:ident; $($key:ident: $ja:literal, $en:literal;)*) => {
        /// One text.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum $name {
            $(#[doc = concat!("`", $en, "`")] $key,)*
        }

        impl $name {
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

pub mod workers;

texts! { Text;
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
    EventGpuXid: "GPUエラー (XID)", "GPU error (XID)";
    EventGpuRecoveryAction: "GPUの復旧操作", "GPU recovery";
    ActionRestartWorker: "ワーカーの再起動", "restart the worker";
    ActionResetGpu: "GPUのリセット", "reset the GPU";
    ActionIsolate: "GPUの切り離し", "take the GPU out of use";
    ActionReboot: "ノードの再起動", "reboot the node";
    ActionDrain: "GPU間通信の停止", "end peer-to-peer traffic";
    ActionDrainAndReset: "処理を終えてからGPUのリセット", "drain, then reset the GPU";
    ActionWorkflow: "手順書による確認", "follow the vendor's procedure";
    ActionWatch: "他の情報も確認", "look at what else is told";
    ActionNone: "対応不要", "nothing to be done";
    Clock: "クロック", "Clock";
    Processes: "プロセス", "Processes";
    LoadTime: "読み込み", "loaded in";
    DownTime: "停止時間", "down for";
    WaitedTime: "経過", "waited";
    // What is said of workers and who looks after them.
    Stopping: "停止処理中", "Stopping";
    LeftAlone: "停止・自動復旧なし", "Left alone";
    ManagerSilent: "管理元応答なし", "Manager silent";
    Held: "保留中", "held";
    Drained: "切り離し中", "drained";
    DriverKind: "管理方式", "Driver";
    HeldBy: "保留した人", "Held by";
    DrainedBy: "切り離した人", "Drained by";
    InWindow: "期間内の再起動", "In window";
    RestartedTooOften: "再起動が多すぎます", "Restarted too often";
    Reason: "理由", "Reason";
    EventWorkerAdopted: "ワーカー引き継ぎ", "Worker adopted";
    EventWorkerStopping: "ワーカー停止開始", "Worker stopping";
    EventWorkerLeftAlone: "ワーカー停止のまま", "Worker left alone";
    EventWorkerBreakerOpen: "再起動が多すぎます", "Restarted too often";
    EventWorkerStable: "ワーカー安定稼働", "Worker stable";
    EventWorkerLeftover: "終了後の残留物", "Left after the end";
    EventWorkerTrouble: "ワーカーの問題", "Worker trouble";
    EventWorkerJobsLost: "ジョブ中断", "Jobs interrupted";
    EventWorkerJobSetAside: "ジョブ隔離", "Job set aside";
    EventWorkerOrder: "指示", "Order";
    EventWorkerEvidence: "終了の記録", "Evidence";
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
    DoctorPass: "正常", "pass";
    DoctorWarn: "注意", "warn";
    DoctorFail: "異常", "FAIL";
    DoctorSkip: "省略", "skip";
    DoctorHung: "{0} 秒以内に終わりませんでした", "did not end within {0} s";
    DoctorNoConfig: "エージェントの設定 {0} を使えないため確認していません (agent.config を参照)", "not looked at: the configuration {0} cannot be used (see agent.config)";
    DoctorNoStatus: "エージェントが応答しないため確認していません (agent.socket を参照)", "not looked at: the agent does not answer (see agent.socket)";
    DoctorNotAllowed: "{0} には {1} を見る権限がありません", "{0} may not look at {1}";
    DoctorNotTold: "{0} が得られません", "{0} is not told";
    DoctorConfigGood: "{0}", "{0}";
    DoctorConfigHung: "{0} の読み込みが終わりません (ファイルシステムの応答なし、またはパイプ)", "reading {0} does not end (a file system that hangs, or a pipe)";
    DoctorConfigMissing: "{0} を読めません: {1}", "{0} cannot be read: {1}";
    DoctorConfigBad: "設定に {1} 件の誤り: {0}", "the configuration has {1} faults: {0}";
    DoctorReloadRefused: "ファイルは正しいですが、動作中のエージェントは前回の再読み込みを拒否し、以前の設定のままです: {0}", "the file is good, but the agent that runs refused it at its last reload and goes on with what it had: {0}";
    DoctorAgentAnswers: "ノード {0} のエージェントが {1} で応答しています", "the agent of node {0} answers at {1}";
    DoctorAgentAbsent: "エージェントが動作していません: {0}: {1}", "the agent does not run: {0}: {1}";
    DoctorAgentDead: "エージェントが動作していません: ソケット {0} だけが残っています", "the agent does not run: only its socket {0} is left";
    DoctorAgentMute: "エージェントは接続を受け付けますが応答しません: {0}", "the agent takes a connection and does not answer: {0}";
    DoctorSocketRefused: "{0} は {1} に接続できません: 権限は {2}", "{0} may not connect to {1}: what stands in the way is {2}";
    DoctorVersionSame: "コマンドもエージェントも {0} です", "command and agent are both {0}";
    DoctorVersionDiffers: "コマンドは {0}、動作中のエージェントは {1} です", "the command is {0}, the agent that runs is {1}";
    DoctorTicksTaken: "すべての値を受け付けています (フレーム {0})", "all values were taken ({0} frames)";
    DoctorTicksRejected: "{0} 回分の値がフレームに入りませんでした (系列またはラベルが多すぎます)", "{0} ticks fitted into no frame (too many series, or names too long)";
    DoctorFilesGood: "開いているファイル {0} / 上限 {1}", "{0} files open of {1}";
    DoctorFilesFew: "開いているファイル {0} / 上限 {1}: 上限は {2} 以上にしてください", "{0} files open of {1}: the limit should be {2} or more";
    DoctorFilesFull: "開いているファイル {0} / 上限 {1}: まもなく開けなくなります", "{0} files open of {1}: soon none can be opened";
    DoctorIdentityReadable: "エージェント ({0}) は CA・証明書・鍵を読めます", "the agent ({0}) may read CA, certificate and key";
    DoctorMayNotRead: "エージェント ({0}) は {1} を読めません: 権限は {2}", "the agent ({0}) may not read {1}: what stands in the way is {2}";
    DoctorIdentityMissing: "{0} を読めません: {1}", "{0} cannot be read: {1}";
    DoctorKeyClosed: "秘密鍵 {0} は保護されています ({1})", "the private key {0} is closed to others ({1})";
    DoctorKeyGroup: "秘密鍵 {0} をグループが読めます ({1})", "the private key {0} can be read by its group ({1})";
    DoctorKeyOpen: "秘密鍵 {0} を他のユーザーが読み書きできます ({1})", "the private key {0} is open to others ({1})";
    DoctorCertificateGood: "ノード {0} の証明書は {1} まで有効です", "the certificate of node {0} is good until {1}";
    DoctorCertificateSoon: "ノード {1} の証明書 {0} は {2} に期限切れになります (残り {3} 日)", "the certificate {0} of node {1} expires at {2} (in {3} days)";
    DoctorCertificateEnded: "ノード {1} の証明書 {0} は {2} に期限切れになりました", "the certificate {0} of node {1} has expired at {2}";
    DoctorCertificateNotYet: "ノード {1} の証明書 {0} は {2} から有効です。このホストの時計は {3} です", "the certificate {0} of node {1} is not valid before {2}; this host's clock says {3}";
    DoctorCertificateUnfit: "証明書 {0} は使えません: {1}", "the certificate {0} cannot be used: {1}";
    DoctorGpuDisabled: "設定で GPU の監視は無効です", "GPUs are switched off in the configuration";
    DoctorDriverUp: "NVIDIA ドライバ {0} が応答しています", "the NVIDIA driver {0} answers";
    DoctorDriverStarting: "ドライバの最初の応答を待っています", "the driver has not answered yet";
    DoctorDriverAbsent: "NVIDIA ドライバがありません: {0} (カーネルモジュール: {1}、デバイス: {2}、PCI 上の NVIDIA GPU: {3}、別のドライバ: {4})", "no NVIDIA driver: {0} (kernel module: {1}; device: {2}; NVIDIA GPUs on PCI: {3}; other driver: {4})";
    DoctorDriverHangs: "GPU ドライバが応答しません: {0} が戻りません (GPU {1})", "the GPU driver does not answer: {0} does not return (GPU {1})";
    DoctorModuleLoaded: "カーネルモジュールは読み込まれています: {0}", "the kernel module is loaded: {0}";
    DoctorNoGpus: "エージェントの見ている GPU はありません", "the agent sees no GPU";
    DoctorGpusReal: "値は本物のドライバのものです", "the values are those of a real driver";
    DoctorGpusAnswer: "GPU {0} 台が応答しています", "{0} GPUs answer";
    DoctorGpusLost: "GPU {1} 台のうち応答のないもの (lost): {0}", "lost, of {1} GPUs: {0}";
    DoctorMayWrite: "エージェント ({0}) は {1} に書き込めます", "the agent ({0}) may write to {1}";
    DoctorMayNotWrite: "エージェント ({0}) は {1} に書き込めません: 権限は {2}", "the agent ({0}) may not write to {1}: what stands in the way is {2}";
    DoctorReadOnly: "{0} のファイルシステムは読み取り専用です", "the file system of {0} is mounted read-only";
    DoctorNoDirectory: "{0} を作れません: {1} はディレクトリではありません", "{0} cannot be made: {1} is no directory";
    DoctorDiskRoom: "{0} の空き容量は {1} です", "{0} has {1} left";
    DoctorDiskTight: "{0} の空き容量は {1} です: スプールは上限 {2} まで広がれません (使用中 {3})", "{0} has {1} left: the spool cannot grow to its bound of {2} (it has {3})";
    DoctorDiskFull: "ディスクがいっぱいです: {0} の空き容量は {1} で、スプールは続けられません", "the disk is full: {0} has {1} left, and the spool cannot go on";
    DoctorInodesRoom: "{0} の空き inode は {1} です", "{0} has {1} inodes left";
    DoctorInodesFull: "{0} の inode が足りません: 残り {1}", "{0} runs out of inodes: {1} are left";
    DoctorNoInodes: "{0} のファイルシステムには inode の上限がありません", "the file system of {0} has no limit of inodes";
    DoctorFramesKept: "未送信 {0} フレーム ({1})、失われたものはありません", "{0} frames wait ({1}), none was lost";
    DoctorFramesLost: "スプールは {0} フレームを失いました (未送信 {1})", "the spool has given up {0} frames ({1} wait)";
    DoctorSpoolProblem: "スプールがフレームを受け付けません: {0}", "the spool takes no frames: {0}";
    DoctorLinkUp: "集約サーバー {0} に接続中です (往復 {1})", "connected to the aggregator {0} (round trip {1})";
    DoctorLinkNotYet: "まだ接続を試みていません ({0})", "no connection was tried yet ({0})";
    DoctorLinkName: "集約サーバー {0} に届きません: 名前を解決できません (DNS): {1}", "the aggregator {0} cannot be reached: its name does not resolve (DNS): {1}";
    DoctorLinkClosed: "集約サーバー {0} に届きません: そのポートでは何も待ち受けていません (拒否)", "the aggregator {0} cannot be reached: nothing listens on that port (refused)";
    DoctorLinkSilent: "集約サーバー {0} に届きません: 応答がありません (UDP が遮断されているか、停止しています)", "the aggregator {0} cannot be reached: no answer (UDP is filtered, or it is down)";
    DoctorLinkTls: "集約サーバー {0} との TLS が拒否されました: {1}", "TLS with the aggregator {0} is refused: {1}";
    DoctorLinkRefused: "集約サーバー {0} がこのエージェントを拒否しました: {1}", "the aggregator {0} refuses this agent: {1}";
    DoctorLinkOther: "集約サーバー {0} に接続できません: {1}", "no link to the aggregator {0}: {1}";
    DoctorNoNetwork: "--network を付けたときだけ試します", "tried only with --network";
    DoctorNetworkGood: "{0} が UDP で応答します", "{0} answers over UDP";
    DoctorClockGood: "集約サーバーとの時計の差は {0} 秒です", "this clock differs from the aggregator's by {0} s";
    DoctorClockBehind: "このホストの時計は集約サーバーより {0} 秒遅れています", "this host's clock is {0} s behind the aggregator's";
    DoctorClockAhead: "このホストの時計は集約サーバーより {0} 秒進んでいます", "this host's clock is {0} s ahead of the aggregator's";
    DoctorClockNoLink: "接続がないため集約サーバーの時計が分かりません", "without a link the aggregator's clock is not known";
    DoctorClockUnknown: "{0} から時刻を得られません: {1}", "{0} does not tell its time: {1}";
    DoctorClockKept: "時計は時刻サーバーと同期しています", "the clock is kept by a time server";
    DoctorClockFree: "時計は時刻サーバーと同期していません", "the clock is not kept by a time server";
    DoctorNoTimedatectl: "timedatectl に聞けません: {0}", "timedatectl cannot be asked: {0}";
    DoctorNoAggregator: "このホストに集約サーバーの設定はありません ({0}: {1})", "no aggregator is configured on this host ({0}: {1})";
    DoctorAggregatorBad: "集約サーバーの設定を読めません: {0}", "the aggregator's configuration cannot be read: {0}";
    DoctorNoRules: "{0} にルールファイルの指定はありません (組み込みルールのみ)", "{0} names no rule files (the built-in ones apply)";
    DoctorNoProgram: "{0} がないためルールを確認していません", "rules are not looked at: no {0}";
    DoctorRulesGood: "ルール {0} 件 ({1} ファイル)", "{0} rules in {1} files";
    DoctorRulesBad: "ルールに {1} 件の誤り: {0}", "the rules have {1} faults: {0}";
    DoctorNoDocker: "Docker はありません ({0})", "there is no Docker ({0})";
    DoctorDockerMute: "Docker に聞けません: {0}", "Docker cannot be asked: {0}";
    DoctorCgroupDriver: "Docker の cgroup ドライバは {0} です: daemon-reload の影響はありません", "Docker's cgroup driver is {0}: a daemon-reload takes nothing away";
    DoctorNoGpuContainers: "動作中のコンテナ {0} 個のうち GPU を使うものはありません", "none of {0} running containers uses a GPU";
    DoctorGpuContainersKeep: "GPU を使うコンテナ {0} 個は daemon-reload の後も GPU を保ちます", "{0} containers keep their GPUs over a daemon-reload";
    DoctorGpuContainersLose: "次の systemctl daemon-reload で GPU を失うコンテナ {1} 個: {0} (systemd の DeviceAllow に GPU がありません)", "the next systemctl daemon-reload takes the GPUs from {1} containers: {0} (systemd's DeviceAllow for them names no GPU)";
    DoctorGpuContainersMayLose: "次の systemctl daemon-reload で GPU を失うおそれのあるコンテナ {1} 個: {0} (GPU が systemd を介さずに渡されています)", "the next systemctl daemon-reload may take the GPUs from {1} containers: {0} (they were let in behind systemd's back)";
    DoctorGpuContainersPerhaps: "Docker は nvidia ランタイムと systemd を使い、GPU を許可されていないコンテナが {0} 個あります。GPU を使うものは次の daemon-reload で失います (Docker に聞けません: {1})", "Docker has the nvidia runtime and systemd's cgroups, and {0} containers have no GPU in their DeviceAllow: any of them that uses one loses it at the next daemon-reload (Docker cannot be asked: {1})";
    DoctorWorkersReady: "ワーカー {1} 台中 {0} 台が稼働中です", "{0} of {1} workers are ready";
    DoctorWorkerNotReady: "ワーカー {0} は稼働していません: {1}", "worker {0} is not ready: {1}";
    DoctorWorkerLate: "ワーカー {0} は {1} 分以上起動中のままです: {2}", "worker {0} has been loading for more than {1} minutes: {2}";
    DoctorWorkerLeftAlone: "ワーカー {0} は停止しており、自動では起動しません: {1}", "worker {0} does not run and is left alone: {1}";
    DoctorWorkerUnknown: "ワーカー {0} の管理元が応答しません: {1}", "the manager of worker {0} does not answer: {1}";
    DoctorWorkerHeld: "ワーカー {0} は {1} が保留中です (自動復旧なし)", "worker {0} is held by {1}: the agent touches it no more";
    DoctorNoQueues: "キューは設定されていません", "no queues are configured";
    DoctorQueuesGood: "キュー {0} 個を読めています", "{0} queues are read";
    DoctorQueueProblem: "キュー {0} を読めません: {1}", "queue {0} cannot be read: {1}";
    DoctorQueueGrows: "キュー {0} は増え続け、処理が進んでいません", "queue {0} only grows, nothing comes out of it";
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
    NoChannel: "通知先が未設定のため、アラートはこの画面にしか出ません。aggregator.toml に [slack] を設定してください", "No channel is configured, so alerts stand on this page only: set [slack] in aggregator.toml";
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
    fn a_text_takes_its_values_in_the_order_of_its_own_language() {
        assert_eq!(fill("{1} の {0}", &[&3, &"w"]), "w の 3");
        assert_eq!(fill("{0} {7} {x", &[&"a{0}"]), "a{0}  ");
    }

    #[test]
    fn a_browser_gets_the_first_language_it_asks_for() {
        assert_eq!(Lang::accepted("fr-FR, en;q=0.8, ja;q=0.7"), Some(Lang::En));
        assert_eq!(Lang::accepted("fr"), None);
        assert_eq!(Lang::of("ja_JP.UTF-8"), Some(Lang::Ja));
    }
}
