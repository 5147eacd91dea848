// Who is alive, as one node sees it, computed from what each heartbeat transaction brings back.
//
// A node is alive when it was last seen, by the server's clock, less than three of its heartbeats ago. Both numbers
// come from one transaction, so no node's clock takes part. Without replies nothing changes: while Redis is
// unreachable nobody is removed, since nobody could have announced itself. For the same reason scores are not held
// against anyone for a while after a pause of replies or a jump of the server's clock (a failover to a server whose
// clock differs): all nodes need a moment to announce themselves anew. A node that is gone may run all the same, cut off
// from Redis: `SilentMembers` finds out.
// Rejected: keys with a TTL, one a node, which cannot be listed without SCAN.

package import Primitives

/// A member as the sorted set and the hash show it.
package struct Member: Hashable, Sendable {
    package var id: NodeID
    package var info: NodeInfo?
    package var lastSeen: RedisTime
    package var isAlive: Bool
    /// Whether it is gone from Redis and yet runs.
    package var isCutOff = false

    package init(id: NodeID, info: NodeInfo?, lastSeen: RedisTime, isAlive: Bool) {
        self.id = id
        self.info = info
        self.lastSeen = lastSeen
        self.isAlive = isAlive
    }
}

/// What one heartbeat transaction brought back. Entries that break the rules of ids or `NodeInfo` are left out by
/// whoever reads the reply, and counted in `ignored`.
package struct HeartbeatReply: Sendable {
    package var serverTime: RedisTime
    package var lastSeen: [(id: NodeID, time: RedisTime)]
    package var info: [NodeID: NodeInfo]
    /// The boot value that stood under this node's id before the transaction wrote its own.
    package var previousBoot: BootID?
    package var ignored: Int

    package init(
        serverTime: RedisTime, lastSeen: [(id: NodeID, time: RedisTime)], info: [NodeID: NodeInfo],
        previousBoot: BootID?, ignored: Int = 0
    ) {
        self.serverTime = serverTime
        self.lastSeen = lastSeen
        self.info = info
        self.previousBoot = previousBoot
        self.ignored = ignored
    }
}

package enum MembershipEvent: Equatable, Sendable, CustomStringConvertible {
    case joined(NodeID, address: String?)
    case left(NodeID)
    case cutOff(NodeID, address: String?)
    /// Another process announces itself under this node's id. Told once for each such process.
    case sharedID(NodeID, otherBoot: BootID)

    package var description: String {
        switch self {
        case .joined(let id, let address): "node \(id) joined\(address.map { " at \($0)" } ?? "")"
        case .left(let id): "node \(id) is gone"
        case .cutOff(let id, let address):
            "node \(id)\(address.map { " at \($0)" } ?? "") runs but is cut off from Redis"
        case .sharedID(let id, let boot): "another process (boot \(boot)) uses this node's id \(id)"
        }
    }
}

package struct MembershipView: Sendable {
    /// How many heartbeats a node may miss.
    package static let beatsMissedMax: Int64 = 3
    /// Entries that were not renewed for so long are removed from Redis by whoever notices. Long enough for a person to
    /// see there which node has gone without a word.
    package static let forgetAfter = TimeSpan.seconds(3600)
    /// How often a node looks for entries to remove.
    package static let pruneInterval = TimeSpan.seconds(60)
    /// Nodes beyond this number are not taken in; a cluster has tens.
    package static let membersMax = 1024

    package let id: NodeID
    package private(set) var info: NodeInfo
    package var heartbeat: TimeSpan { info.heartbeat }
    package private(set) var members: [Member] = []
    /// The ids of all living nodes in order, this one always among them.
    package private(set) var liveNodes: [NodeID]

    private var silent = SilentMembers()
    private var lastReply: (serverTime: RedisTime, at: MonotonicTime)?
    private var graceUntil: MonotonicTime?
    private var nextPrune: MonotonicTime?
    /// How often each foreign boot value was found under this node's id.
    private var foreignBoots: [BootID: Int] = [:]
    /// Processes under one id that are told apart; whoever runs more has been told often enough.
    private static let foreignBootsMax = 16

    package init(id: NodeID, info: NodeInfo) {
        self.id = id
        self.info = info
        liveNodes = [id]
    }

    package var liveCount: Int { liveNodes.count }
    /// Those who run and are cut off from Redis.
    package var cutOffCount: Int { members.count(where: \.isCutOff) }
    /// Among how many nodes those divide a limit: the nodes that ran when they fell silent. Of several, the fewest.
    package var sharers: Int {
        let running = liveCount + cutOffCount
        return members.filter(\.isCutOff).map { silent.sharers($0.id) ?? running }.min() ?? running
    }

    /// This node announces itself otherwise from here on.
    package mutating func announce(at address: String?, every heartbeat: TimeSpan) {
        if let address { info.address = address }
        info.heartbeat = heartbeat
    }

    /// Where others find this node.
    package mutating func announce(reach: SocketAddress?) { info.reach = reach }

    package mutating func announce(configuration: String, follows: Bool) {
        info.configuration = configuration
        info.follows = follows
    }

    /// Takes the reply to one heartbeat and tells what has changed.
    package mutating func received(
        _ reply: HeartbeatReply, at now: MonotonicTime, into events: inout [MembershipEvent]
    ) {
        noticePauseOrJump(reply.serverTime, now)
        lastReply = (reply.serverTime, now)
        if let until = graceUntil, now >= until { graceUntil = nil }

        let before = Set(liveNodes)
        let running = before.union(members.filter(\.isCutOff).map(\.id))
        var quiet: [(id: NodeID, lastSeen: RedisTime)] = []
        var seen: [Member] = []
        for (id, time) in reply.lastSeen.prefix(Self.membersMax) {
            let info = id == self.id ? self.info : reply.info[id]
            let fresh = isFresh(time, info?.heartbeat ?? heartbeat, reply.serverTime)
            let alive = id == self.id || fresh || (graceUntil != nil && before.contains(id))
            seen.append(Member(id: id, info: info, lastSeen: time, isAlive: alive))
            let age = reply.serverTime - time
            if id != self.id, age >= (info?.heartbeat ?? heartbeat) * SilentMembers.beatsMissed {
                quiet.append((id, time))
            }
        }
        if !seen.contains(where: { $0.id == id }) {
            seen.append(Member(id: id, info: info, lastSeen: reply.serverTime, isAlive: true))
        }
        // Redis may come back empty: those who were alive have the same moment to announce themselves, and who is cut off
        // cannot. Another node, which does not reach it, may also have taken that one out.
        let present = Set(seen.map(\.id))
        for var member in members where !present.contains(member.id) {
            let hasGrace = member.isAlive && graceUntil != nil
            guard hasGrace || silent.isCutOff(member.id) else { continue }
            member.isAlive = hasGrace
            seen.append(member)
            if !hasGrace { quiet.append((member.id, member.lastSeen)) }
        }
        silent.update(quiet, running: running, at: now)
        members = seen.sorted { $0.id < $1.id }
        for index in members.indices { members[index].isCutOff = isCutOff(members[index]) }
        liveNodes = members.filter(\.isAlive).map(\.id)

        for member in members where member.isAlive && !before.contains(member.id) {
            events.append(.joined(member.id, address: member.info?.address))
        }
        noticeGone(running, into: &events, live: before)
        noticeSharedID(reply, into: &events)
    }

    private func isCutOff(_ member: Member) -> Bool { !member.isAlive && silent.isCutOff(member.id) }

    /// - Parameters:
    ///   - running: who ran before.
    ///   - live: who of these had Redis.
    private func noticeGone(_ running: Set<NodeID>, into events: inout [MembershipEvent], live: Set<NodeID>) {
        for member in members where member.isCutOff && (live.contains(member.id) || !running.contains(member.id)) {
            events.append(.cutOff(member.id, address: member.info?.address))
        }
        let left = running.subtracting(members.filter { $0.isAlive || $0.isCutOff }.map(\.id))
        for id in left.sorted() { events.append(.left(id)) }
    }

    // MARK: Who is silent

    /// Whom to ask for a connection now, to know whether it runs.
    ///
    /// - Parameter mayAskLoopback: whether addresses of this host alone are this host's to the others as well.
    package mutating func questions(mayAskLoopback: Bool, at now: MonotonicTime) -> [SilenceQuestion] {
        // An address says nothing of a node that another has taken the place of.
        var latest: [SocketAddress: Member] = [:]
        for member in members where member.id != id {
            guard let target = target(of: member.info) else { continue }
            if let other = latest[target] {
                if other.isAlive || !member.isAlive && other.lastSeen > member.lastSeen { continue }
            }
            latest[target] = member
        }
        let own = target(of: info)
        var targets: [NodeID: SocketAddress] = [:]
        for (target, member) in latest where target != own && (mayAskLoopback || !target.ip.isLoopback) {
            targets[member.id] = target
        }
        return silent.questions(targets, every: heartbeat, at: now)
    }

    /// Takes the answer to a question and tells what follows from it.
    package mutating func answered(
        _ question: SilenceQuestion, _ answer: SilenceAnswer, into events: inout [MembershipEvent]
    ) {
        let live = Set(liveNodes)
        let running = live.union(members.filter(\.isCutOff).map(\.id))
        silent.answered(question, answer)
        for index in members.indices { members[index].isCutOff = isCutOff(members[index]) }
        noticeGone(running, into: &events, live: [])
    }

    /// Where a member can be asked for a connection; `nil` where it has said nothing that anybody could use.
    private func target(of info: NodeInfo?) -> SocketAddress? {
        guard let info, let target = info.reach ?? SocketAddress(info.address) else { return nil }
        return target.port == 0 || target.ip.isUnspecified ? nil : target
    }

    /// Less than three heartbeats ago. A score from the future counts only within the same bound: otherwise a score
    /// far ahead, from a server whose clock was wrong, would keep a dead node alive.
    private func isFresh(_ time: RedisTime, _ heartbeat: TimeSpan, _ serverTime: RedisTime) -> Bool {
        let age = serverTime - time
        let allowed = heartbeat * Self.beatsMissedMax
        return age < allowed && TimeSpan.zero - allowed < age
    }

    private mutating func noticePauseOrJump(_ serverTime: RedisTime, _ now: MonotonicTime) {
        guard let last = lastReply else { return }
        let elapsed = now - last.at
        let error = serverTime - (last.serverTime + elapsed)
        let jumped = error > heartbeat || error < TimeSpan.zero - heartbeat
        if elapsed > heartbeat * 2 || jumped { graceUntil = now + heartbeat * Self.beatsMissedMax }
    }

    /// Once may be the run before this one; twice the same foreign boot value means that it keeps announcing itself.
    private mutating func noticeSharedID(_ reply: HeartbeatReply, into events: inout [MembershipEvent]) {
        guard let boot = reply.previousBoot, boot != info.boot else { return }
        guard let sightings = foreignBoots[boot] else {
            if foreignBoots.count < Self.foreignBootsMax { foreignBoots[boot] = 1 }
            return
        }
        if sightings == 1 {
            foreignBoots[boot] = 2
            events.append(.sharedID(id, otherBoot: boot))
        }
    }

    /// What to remove from Redis now: the bound for `ZREMRANGEBYSCORE sluice:nodes -inf …`, and the fields of
    /// `sluice:nodes:info` that go with it or have no entry in the sorted set. `nil` where there is nothing to do. A node
    /// that comes back at this very moment writes both again with its next heartbeat.
    package mutating func prune(_ reply: HeartbeatReply, at now: MonotonicTime) -> (
        before: RedisTime, fields: [NodeID]
    )? {
        if let next = nextPrune, now < next { return nil }
        nextPrune = now + Self.pruneInterval
        // Who is cut off for so long runs nevertheless, and so stays; what is older goes.
        let longest = members.filter(\.isCutOff).map(\.lastSeen).min()
        let bound = min(reply.serverTime - Self.forgetAfter, (longest ?? reply.serverTime) - .microseconds(1))
        var listed: Set<NodeID> = []
        var fields: [NodeID] = []
        for (id, time) in reply.lastSeen {
            listed.insert(id)
            if time < bound, id != self.id { fields.append(id) }
        }
        for id in reply.info.keys where !listed.contains(id) && id != self.id { fields.append(id) }
        return fields.isEmpty ? nil : (bound, fields.sorted())
    }
}
