// Whose limits are near their bound and who is refused, over the whole cluster, for those who watch a node. While somebody
// watches, the node asks the others now and then; each answers with its own, and they are added up here.

import EventLoop
package import Health
import Identity
import LinuxIO
import Membership
import Primitives
import RateLimiting
import RedisClient

struct LimitWatch {
    fileprivate var others: [NodeID: (news: LimitNews, at: MonotonicTime)] = [:]
    fileprivate var own: (news: LimitNews, until: MonotonicTime)?
    /// This node's own of the moment when it asked the others last.
    fileprivate var asked: (news: LimitNews, at: MonotonicTime)?
    fileprivate var answers = (count: 0, since: MonotonicTime(nanoseconds: .min))

    /// How often the others are asked.
    fileprivate static let interval = TimeSpan.seconds(1)
    /// How long a look at this node's own tables is good for: short, so that all nodes look at the same moment.
    fileprivate static let lookInterval = TimeSpan.milliseconds(20)
    /// With very many subjects a look takes some ten milliseconds: no more than this part of the time.
    fileprivate static let lookShare: Int64 = 20
    /// An answer that is older is not shown: its node has gone, or nobody has asked for long.
    fileprivate static let lifetime = TimeSpan.seconds(10)
    /// Answers an interval: each node that is watched asks once.
    fileprivate static let answersMax = 64
}

extension Control {
    /// What is known now; whoever asks again in two seconds gets what the others have said meanwhile.
    ///
    /// All nodes look when one asks, this one too: parts of different moments would add up to what never was.
    package func limitPicture() -> (uses: [LimitNews.Use], refusals: [LimitNews.Refusal]) {
        guard let link else { return LimitNews.merged([ownLimits()], atMost: LimitNews.rowsMax, isKept: true) }
        let now = loop.now
        let alive = Set(membership.liveNodes)
        limitWatch.others = limitWatch.others.filter { alive.contains($0) && now - $1.at < LimitWatch.lifetime }
        var own: LimitNews?
        if let asked = limitWatch.asked, now - asked.at < LimitWatch.lifetime { own = asked.news }
        let picture = LimitNews.merged(
            [own ?? ownLimits()] + limitWatch.others.values.map(\.news), atMost: LimitNews.rowsMax,
            isKept: clusterState == .reached)
        if limitWatch.asked.map({ now - $0.at >= LimitWatch.interval }) ?? true {
            limitWatch.asked = (ownLimits(), now)
            link.askForLimits()
        }
        return picture
    }

    private func ownLimits() -> LimitNews {
        if let own = limitWatch.own, loop.now < own.until { return own.news }
        let begun = SystemClock.monotonic()
        let news = limitStatus.news(of: nodeID, refused: node.refused, at: loop.now)
        let cost = SystemClock.monotonic() - begun
        let pause = saturatingMultiply(cost.nanoseconds, LimitWatch.lookShare)
        limitWatch.own = (news, loop.now + max(LimitWatch.lookInterval, .nanoseconds(pause)))
        return news
    }

    func limitsAsked(by asker: NodeID) {
        guard asker != nodeID else { return }
        if loop.now - limitWatch.answers.since >= LimitWatch.interval { limitWatch.answers = (0, loop.now) }
        guard limitWatch.answers.count < LimitWatch.answersMax else { return }
        limitWatch.answers.count += 1
        link?.tellLimits(ownLimits(), to: asker)
    }

    func limitsTold(_ news: LimitNews) {
        guard news.node != nodeID, membership.liveNodes.contains(news.node) else { return }
        limitWatch.others[news.node] = (news, loop.now)
    }
}

extension ClusterLink {
    func askForLimits() { publish(id.text, on: LimitNews.channel) }

    func tellLimits(_ news: LimitNews, to asker: NodeID) { publish(news.json, on: LimitNews.answers(to: asker)) }
}

extension LimitStatus {
    /// What a node knows by itself.
    fileprivate func news(of node: NodeID, refused: [RefusedTable], at now: MonotonicTime) -> LimitNews {
        var counts: [SubjectKey: Int] = [:]
        for table in refused { for entry in table.entries { counts[entry.subject, default: 0] += entry.count } }
        let most = counts.sorted { $0.value > $1.value }.prefix(LimitNews.rowsMax)
        return LimitNews(
            node: node,
            uses: busiest(atMost: LimitNews.rowsMax, at: now).map { use in
                let policy = policies[Int(use.subject.policy)]
                return LimitNews.Use(
                    policy: policy.name, tier: policy.tier, subject: name(of: use.subject), used: use.used,
                    limit: use.limit, window: policy.form == .leases ? nil : "\(policy.window)")
            },
            refusals: most.map { subject, count in
                let policy = Int(subject.policy)
                return LimitNews.Refusal(
                    policy: policies.indices.contains(policy) ? policies[policy].name : "", subject: name(of: subject),
                    count: count)
            })
    }
}
