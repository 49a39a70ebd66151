//! What is said of a worker's supervision: why it is as it is, why it was stopped, what an order brings.
//! The judge's own reasons are English; these are the sentences around them.

use super::Lang;
use crate::event::Cause;

texts! { Saying;
    // What it is now: {0} is the worker.
    NowStarting: "{0} は起動中です (モデルの読み込み、または復旧の確認)", "{0} is starting: it loads, or proves itself";
    NowReady: "{0} は稼働中です", "{0} takes jobs";
    NowNotReady: "{0} は動いていますが、ジョブを受け付けません", "{0} lives and takes no jobs any more";
    NowStopping: "{0} は停止処理中です", "{0} is being stopped";
    NowWaiting: "{0} は終了し、次の起動を待っています", "{0} has ended and waits for its next start";
    NowLeftAlone: "{0} は停止しており、エージェントは起動しません", "{0} does not run, and the agent leaves it so";
    NowUnknown: "{0} の状態は不明です (管理元が応答しません)", "nothing is known of {0}: whoever runs it does not answer";
    NowOther: "{0} の状態は {1} です", "{0} is {1}";
    SinceAt: "{0} から ({1})", "since {0} ({1} ago)";
    // What stands before a line.
    Reason: "理由", "Reason";
    LastExit: "前回の終了", "Last exit";
    Start: "起動の期限", "Start";
    Budget: "再起動の枠", "Budget";
    Breaker: "ブレーカー", "Breaker";
    NextStart: "次の起動", "Next start";
    Stop: "停止処理", "Stop";
    Lease: "フリートの許可", "Leave";
    Held: "保留", "Held";
    Drained: "切り離し", "Drained";
    Proof: "復旧の確認", "Proof";
    Gpu: "GPU", "GPU";
    Jobs: "ジョブ", "Jobs";
    ViewsTitle: "各観点", "What each view says";
    DecisionsTitle: "直近の判断", "The last decisions";
    NoDecisions: "まだ何も判断していません", "nothing was decided yet";
    // Views, and what they say.
    ViewHealth: "応答", "health";
    ViewCpu: "CPU", "CPU";
    ViewGpu: "GPU", "GPU";
    ViewJobs: "ジョブ", "jobs";
    SaysWell: "良好", "well";
    SaysAgainst: "停滞", "against";
    SaysUnknown: "不明", "unknown";
    // Lines: {0}, {1}, ... are times and numbers.
    StartSoFar: "経過 {0} · ", "{0} so far · ";
    StartRules: "動きのない起動は {0}、それ以外は {1} で打ち切り", "ended after {0} when nothing moves, after {1} in any case";
    StartLoads: " · 最近の起動 {0}", " · lately {0}";
    BudgetSpent: "{2} に {0} 回 (上限 {1}) · 正常確認後の再起動 {3} 回", "{0} of {1} restarts in {2} · {3} since it last proved healthy";
    BreakerOpen: "開: 再起動が多すぎるため間隔を空けて試行 (これまで {0} 回)", "open: restarted too often, tried at long intervals ({0} so far)";
    InAt: "{0} 後 ({1})", "in {0} ({1})";
    StopLine: "{0} ({1}): 今は{2}、次の段階まで最大 {3}", "{0} ({1}): {2}; the next step in {3} at most";
    StepTakingOut: "振り分けから外す段階", "it is taken out of its balancer";
    StepDraining: "処理中のジョブの終了待ち", "its jobs are waited for";
    StepTerminating: "SIGTERM 送信済み", "SIGTERM was sent";
    StepTracing: "トレースバック要求済み", "its traceback was asked for";
    StepKilling: "SIGKILL 送信済み", "SIGKILL was sent";
    LeaseAsked: "問い合わせ中", "asked, not answered yet";
    LeaseDenied: "拒否: {0}", "denied: {0}";
    LeaseHeld: "取得済み", "given";
    By: "{0} による", "by {0}";
    ProofReadiness: "連続した稼働応答を待っています", "it has to answer \"ready\" some times in a row";
    ProofJob: "確認用ジョブの完了を待っています", "a job made up for it has to end";
    ProofGpu: "GPU メモリの確保を待っています", "it has to hold GPU memory";
    ProofDone: "完了", "done";
    GpuHolds: "メモリ {0} を使用中", "it holds {0}";
    GpuNotTold: "ドライバの情報なし", "the driver does not tell";
    GpuNotUsed: "使用は確認されていません", "no use of it was seen or is configured";
    JobsUnderWay: "受付済み・処理中 {0} 件", "{0} accepted or running";
    JobsUnknown: "受付済み・処理中の件数は不明 ([[worker]] queue が未設定か、応答なし)", "not known how many are accepted or running (no [[worker]] queue, or it does not answer)";
    JobsLongest: " · 最長 {0}", " · the longest seen took {0}";
    // Findings of `status`.
    LeftAloneFor: "自動復旧なし: {0}", "is left alone: {0}";
    TooOften: "再起動が多すぎます、次の試行まで {0}", "restarted too often, next try in {0}";
    HeldByWhom: "{0} が保留中 (自動復旧なし)", "held by {0}: the agent touches it no more";
    DrainedByWhom: "{0} が切り離し中 (新しいジョブなし)", "drained by {0}: no new jobs come to it";
    ManagerMute: "管理元が応答しません: {0}", "manager does not answer: {0}";
    // Orders.
    RestartWaits: "受付済み・処理中の {0} 件のジョブの終了を最大 {1} 待ちます。その後 SIGTERM を送り、{2} 以内に終わらないものは失われます (--now ではすぐに失われます)", "{0} jobs accepted or running would be waited for up to {1}, then SIGTERM is sent, and what has not ended {2} later is lost; with --now they are lost at once";
    RestartLoses: "--now: 受付済み・処理中の {0} 件のジョブは失われます", "--now: {0} jobs accepted or running are lost";
    RestartMayLose: "受付済み・処理中のジョブの件数は不明です。SIGTERM から {0} 以内に終わらないものは失われます", "how many jobs are accepted or running is not known; those that have not ended {0} after SIGTERM are lost";
    RestartMayLoseNow: "--now: 受付済み・処理中のジョブの件数は不明で、あれば失われます", "--now: how many jobs are accepted or running is not known; they are lost";
    RestartAsk: "{0} を再起動しますか? [y/N] ", "restart {0}? [y/N] ";
    RestartNotDone: "{0} は再起動していません", "{0} was not restarted";
    DoneHeld: "保留しました。解除するまでエージェントは何もしません", "held";
    DoneReleased: "保留を解除しました", "released";
    DoneResumed: "振り分けに戻しました", "resumed";
    DoneDrained: "新しいジョブは来ません", "no new jobs come to it";
    DoneStopping: "すでに停止処理中です", "it is being stopped already";
    DoneRestarting: "停止して起動し直します", "it is stopped and started again";
    DoneStarting: "すでに起動中です", "it is being started already";
    DoneStarted: "起動します", "it is started";
    ReadyAgain: "{0} 後に稼働しました", "ready again after {0}";
    // Why a worker is stopped or started anew.
    CauseExited: "プロセス終了", "its process ended";
    CauseStartFailed: "起動失敗", "it could not be started";
    CauseStartOverdue: "起動の期限切れ", "its start took too long";
    CauseNotReady: "応答不良", "it says that it is not ready and does nothing";
    CauseWedged: "無応答 (停滞)", "it hangs";
    CauseGpuMemoryGrowth: "GPU メモリの増加", "its GPU memory grows with each job";
    CauseCudaOutOfMemory: "GPU メモリ不足", "it runs out of GPU memory";
    CauseCudaContextLost: "CUDA コンテキスト喪失", "its CUDA context is lost";
    CauseXid: "GPU エラー (XID)", "a GPU error (XID) calls for it";
    CauseFellToCpu: "CPU での動作に低下", "it came up without its GPU";
    CauseProofFailed: "確認用ジョブの失敗", "a job made up for it failed";
    CauseOperator: "オペレーターの指示", "a person wanted it";
    CauseReconfigured: "設定変更", "its configuration changed";
    CauseUnknown: "不明な理由", "for a reason of a later version";
    // Events.
    NotStartedAgain: "起動し直しません", "not started again";
    LeftProcesses: "残ったプロセス {0}", "processes left {0}";
    LeftMemory: "残った GPU メモリ {0}", "GPU memory left {0}";
    JobsWere: "ジョブ {0} 件", "{0} jobs";
    Resubmitted: "再投入 {0} 件", "{0} given back";
    JobOf: "ジョブ {0}", "job {0}";
    Kills: "ワーカー {0} 台を終了させました", "it ended {0} workers";
    Refused: "拒否: {0}", "refused: {0}";
    RunsFor: "稼働 {0}", "runs for {0}";
    ReadyFor: "稼働継続 {0}", "ready for {0}";
    NextTry: "次の試行まで {0}", "next try in {0}";
    RestartsWere: "再起動 {0} 回", "{0} restarts";
    RestartNumber: "再起動 #{0}", "restart #{0}";
    EvidenceHas: "出力 {0} 行、プローブ {1} 件、ジョブ {2} 件、GPU {3} 台", "{0} lines of output, {1} probes, {2} jobs, {3} GPUs";
}

impl Saying {
    /// What orders answer; the agent says them in English.
    pub const DONE: [Self; 8] = [
        Self::DoneHeld,
        Self::DoneReleased,
        Self::DoneResumed,
        Self::DoneDrained,
        Self::DoneStopping,
        Self::DoneRestarting,
        Self::DoneStarting,
        Self::DoneStarted,
    ];
}

impl From<Cause> for Saying {
    fn from(cause: Cause) -> Self {
        match cause {
            Cause::Exited => Self::CauseExited,
            Cause::StartFailed => Self::CauseStartFailed,
            Cause::StartOverdue => Self::CauseStartOverdue,
            Cause::NotReady => Self::CauseNotReady,
            Cause::Wedged => Self::CauseWedged,
            Cause::GpuMemoryGrowth => Self::CauseGpuMemoryGrowth,
            Cause::CudaOutOfMemory => Self::CauseCudaOutOfMemory,
            Cause::CudaContextLost => Self::CauseCudaContextLost,
            Cause::Xid => Self::CauseXid,
            Cause::FellToCpu => Self::CauseFellToCpu,
            Cause::ProofFailed => Self::CauseProofFailed,
            Cause::Operator => Self::CauseOperator,
            Cause::Reconfigured => Self::CauseReconfigured,
            Cause::Unknown => Self::CauseUnknown,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_languages_have_the_same_places_for_values() {
        let places = |text: &str| {
            let mut places: Vec<&str> =
                text.split('{').skip(1).filter_map(|part| Some(part.split_once('}')?.0)).collect();
            places.sort_unstable();
            places.join(",")
        };
        for saying in Saying::ALL {
            let [ja, en] = [Lang::Ja, Lang::En].map(|lang| saying.in_lang(lang));
            assert!(!ja.trim().is_empty() && !en.trim().is_empty(), "{saying:?}");
            assert_eq!(places(ja), places(en), "{saying:?}");
        }
    }
}
