// Heartbeats: each says that this node lives, and brings back who else does.

import EventLoop
import Health
import Hiredis
import Membership
import Primitives
import RedisClient

extension ClusterLink {
    func beat() {
        guard !hasLeft else { return }
        timer.schedule(after: info.heartbeat)
        guard commands.isReady, !heartbeatUnderWay, let (time, at) = serverTime else { return }
        heartbeatUnderWay = true
        loop.updateTime()
        beatSentAt = loop.now
        var told = info
        told.activity = activity
        told.reach = reach
        let now = time + (loop.now - at)
        let (nodes, infos) = (placed(MembershipKeys.nodes), placed(MembershipKeys.info))
        askedInfos = isAvoided(MembershipKeys.info) ? (seen.isEmpty ? [id] : seen) : nil
        transaction(.heartbeat) {
            write("TIME")
            write("HGET", infos, id.text)
            write("ZADD", nodes, "\(now.microseconds)", id.text)
            write("HSET", infos, id.text, told.json)
            // The latest first: entries of nodes long gone must not push out the living.
            write("ZREVRANGE", nodes, "0", "\(MembershipView.membersMax - 1)", "WITHSCORES")
            if let askedInfos { write("HMGET", [infos] + askedInfos.map(\.text)) } else { write("HGETALL", infos) }
        }
    }

    func heartbeatReplied(_ reply: Reply) {
        heartbeatUnderWay = false
        // Array(6) Array(2) seconds micros boot added set Array(2n) … Array(2m) …
        guard reply.kind(1) == .array, let seconds = reply.integer(2), let micros = reply.integer(3),
            reply.kind(5) == .integer, reply.kind(7) == .array
        else {
            if let refusal = reply.firstError {
                heartbeatRefused(.refused(refusal))
            } else {
                commands.distrust("a heartbeat's answer of another shape")
            }
            return
        }
        if reply.kind(6) == .error {
            let text = reply.text(6)
            complain(
                of: MembershipKeys.info, "\(MembershipKeys.info) cannot be written: \(text)",
                RedisCause(errorText: text))
        } else if !isAvoided(MembershipKeys.info) {
            isWell(MembershipKeys.info)
        }
        let time = RedisTime(microseconds: saturatingAdd(saturatingMultiply(seconds, 1_000_000), micros))
        loop.updateTime()
        serverTime = (time, loop.now)
        clockSample = ServerTimeSample(sentAt: beatSentAt, receivedAt: loop.now, time: time)
        var ignored = 0
        var previousBoot: BootID?
        if reply.kind(4) == .bulk, let before = try? NodeInfo(json: Array(reply.text(4).utf8), assumed: info.heartbeat)
        {
            previousBoot = before.boot
        }
        var lastSeen: [(id: NodeID, time: RedisTime)] = []
        let seenCount = reply.elementCount(7) ?? 0
        var index = 8
        for _ in 0..<seenCount / 2 {
            if let node = try? NodeID(reply.text(index)), let score = Double(reply.text(index + 1)), abs(score) < 9e15 {
                lastSeen.append((node, RedisTime(microseconds: Int64(score))))
            } else {
                ignored += 1
            }
            index += 2
        }
        let infos = readInfos(reply, at: index, &ignored)
        seen = lastSeen.map(\.id)
        owner?.heartbeatAnswered(
            HeartbeatReply(
                serverTime: time, lastSeen: lastSeen, info: infos, previousBoot: previousBoot, ignored: ignored))
        heartbeatTaken()
    }

    /// What the nodes say of themselves: the whole hash, or the fields that were asked for.
    private func readInfos(_ reply: Reply, at start: Int, _ ignored: inout Int) -> [NodeID: NodeInfo] {
        guard reply.kind(start) == .array, let count = reply.elementCount(start) else { return [:] }
        var infos: [NodeID: NodeInfo] = [:]
        func take(_ name: String, _ index: Int) {
            if reply.byteCount(index) <= NodeInfo.bytesMax, let node = try? NodeID(name),
                let theirs = try? NodeInfo(json: reply.bytes(index), assumed: info.heartbeat)
            {
                infos[node] = theirs
            } else {
                ignored += 1
            }
        }
        if let asked = askedInfos {
            for (offset, node) in asked.prefix(count).enumerated() where reply.kind(start + 1 + offset) == .bulk {
                take(node.text, start + 1 + offset)
            }
        } else if count / 2 > Self.fieldsMax {
            avoid(MembershipKeys.info, "it has \(count / 2) fields")
        } else {
            for index in stride(from: start + 1, to: start + count, by: 2) {
                take(reply.text(index), index + 1)
            }
        }
        return infos
    }

    /// Takes entries of nodes that are long gone out of Redis.
    func prune(before bound: RedisTime, _ gone: [NodeID]) {
        guard commands.isReady else { return }
        transaction(.write(MembershipKeys.nodes)) {
            write("ZREMRANGEBYSCORE", placed(MembershipKeys.nodes), "-inf", "\(bound.microseconds)")
            write("HDEL", [placed(MembershipKeys.info)] + gone.map(\.text))
        }
    }

    /// Takes this node out of the cluster: the others need not wait for missed heartbeats.
    func leave() {
        guard !hasLeft else { return }
        fallSilent()
        guard commands.isReady else { return }
        transaction(.write(MembershipKeys.nodes)) {
            write("ZREM", placed(MembershipKeys.nodes), id.text)
            write("HDEL", placed(MembershipKeys.info), id.text)
        }
    }

    /// Announces the node no more, and takes nothing back: another process speaks under its name.
    func fallSilent() {
        hasLeft = true
        timer.cancel()
    }
}
