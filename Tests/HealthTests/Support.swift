import Health
import Membership
import Primitives

func node(_ text: String) -> NodeID {
    do throws(NodeIDError) { return try NodeID(text) } catch { fatalError("\(error)") }
}

func moment(_ time: TimeSpan) -> HealthMoment {
    HealthMoment(
        monotonic: MonotonicTime(nanoseconds: 1_000_000_000) + time,
        wall: UnixTime(milliseconds: 1_700_000_000_000 + time.milliseconds))
}

func verdict(
    _ state: VerdictState, kind: EvidenceKind = .probe, boot: UInt64 = 1, sequence: UInt64 = 1, since: Int64 = 0
) -> HealthVerdict {
    HealthVerdict(
        state: state, kind: kind, boot: BootID(boot), sequence: sequence, since: UnixTime(milliseconds: since),
        evidence: "because")
}

let refused = HealthFailure.connection("connection refused")

extension VerdictTable {
    /// Where the time does not matter.
    mutating func merge(_ verdict: HealthVerdict, of node: NodeID) -> MergeOutcome {
        merge(verdict, of: node, at: moment(.zero).monotonic)
    }
}
