// What the nodes tell each other of backends: written and published in one transaction, so that nobody can see one
// without the other, and read from hashes that hold the truth.

import EventLoop
import Health
import Hiredis
import Membership
import Primitives
import RedisClient

extension ClusterLink {
    // MARK: Telling

    private func tell(
        _ hash: String, _ field: String, _ value: String, channel: String, _ message: String? = nil,
        kept lifetime: TimeSpan? = nil
    ) {
        guard commands.isReady else { return }
        var words = [["HSET", placed(hash), field, value]]
        if let lifetime { words.append(["PEXPIRE", placed(hash), "\(lifetime.milliseconds)"]) }
        words.append(["PUBLISH", channel, message ?? value])
        say(words, .write(hash))
    }

    func publish(_ news: HealthNews) {
        saidSomething(HealthKeys.channel)
        tell(
            HealthKeys.hash(service: news.backend.service), HealthKeys.field(url: news.backend.url, node: news.node),
            news.verdict.json, channel: HealthKeys.channel, news.json)
    }

    /// How a probe in turn ended.
    func publish(_ report: ProbeReport) {
        saidSomething(HealthKeys.probesChannel)
        tell(
            HealthKeys.probes(service: report.backend.service), report.backend.url, report.json,
            channel: HealthKeys.probesChannel, kept: HealthKeys.probesLifetime)
    }

    /// The number of a breaker, and the news of it.
    func publish(_ news: BreakerNews) {
        tell(
            HealthKeys.breakers(service: news.backend.service), news.backend.url, news.json,
            channel: HealthKeys.breakersChannel, kept: HealthKeys.probesLifetime)
    }

    /// An operator's word, and the news that there is one.
    func write(_ word: OperatorWord, of key: BackendKey) {
        tell(
            HealthKeys.operators, HealthKeys.operatorField(key), word.json, channel: HealthKeys.operators,
            HealthKeys.operatorsChanged)
    }

    /// What this node has in flight.
    func publish(_ news: LoadNews) { publish(news.json, on: LoadNews.channel) }

    /// Sets the key of a trial unless somebody has. Who comes too late must not make it live longer: while all ask in
    /// turn, it would never end, and nobody would try in the place of a node that has died.
    func claim(_ key: BackendKey, number: UInt64, lifetime: TimeSpan) {
        command(
            .claim(key, number: number), "SET", placed(HealthKeys.trial(key, number: number)), id.text, "NX", "PX",
            "\(max(1_000, lifetime.milliseconds))")
    }

    /// Takes the key of a trial away, which this node has set and which has come to nothing.
    func release(_ key: BackendKey, number: UInt64) {
        guard commands.isReady else { return }
        let name = HealthKeys.trial(key, number: number)
        command(.write(name), "DEL", placed(name))
    }

    func remove(service: String, fields: [String]) {
        guard commands.isReady, !fields.isEmpty else { return }
        let hash = HealthKeys.hash(service: service)
        command(.write(hash), ["HDEL", placed(hash)] + fields)
    }

    // MARK: Reading

    func readWords() { read(HealthKeys.operators, .words) }

    func readSnapshot(service: String) {
        if isAvoided(HealthKeys.hash(service: service)) { owner?.healthSnapshotRefused(service: service) }
        read(HealthKeys.hash(service: service), .snapshot(service: service))
        read(HealthKeys.probes(service: service), .probes(service: service))
        read(HealthKeys.breakers(service: service), .breakers(service: service))
    }

    private func read(_ hash: String, _ purpose: Purpose) {
        guard commands.isReady, !isAvoided(hash) else { return }
        command(purpose, "HGETALL", placed(hash))
    }

    // MARK: Answers

    func snapshotReplied(_ reply: Reply, service: String) {
        let hash = HealthKeys.hash(service: service)
        guard reply.kind(0) == .array else {
            owner?.healthSnapshotFailed()
            return
        }
        if let fields = fields(reply, of: hash) {
            owner?.healthSnapshot(service: service, fields)
        } else {
            owner?.healthSnapshotRefused(service: service)
        }
    }

    func probesReplied(_ reply: Reply, service: String) {
        for (_, value) in fields(reply, of: HealthKeys.probes(service: service)) ?? [] {
            do throws(HealthFormatError) {
                owner?.probeReported(try ProbeReport(json: value))
            } catch {
                owner?.healthIgnored(error)
            }
        }
    }

    func breakersReplied(_ reply: Reply, service: String) {
        guard let fields = fields(reply, of: HealthKeys.breakers(service: service)) else { return }
        var news: [BreakerNews] = []
        for (_, value) in fields {
            do throws(HealthFormatError) { news.append(try BreakerNews(json: value)) } catch {
                owner?.healthIgnored(error)
            }
        }
        owner?.breakerSnapshot(service: service, news)
    }

    func wordsReplied(_ reply: Reply) {
        if let fields = fields(reply, of: HealthKeys.operators) { owner?.operatorWords(fields) }
    }

    /// A hash as `HGETALL` answers it; `nil` where it is none, or holds more than any cluster writes.
    private func fields(_ reply: Reply, of hash: String) -> [(field: String, value: [UInt8])]? {
        guard reply.kind(0) == .array else { return nil }
        guard reply.count / 2 <= Self.fieldsMax else {
            avoid(hash, "it has \(reply.count / 2) fields")
            return nil
        }
        var fields: [(field: String, value: [UInt8])] = []
        fields.reserveCapacity(reply.count / 2)
        for index in stride(from: 1, to: reply.count - 1, by: 2) {
            // What is too long is not copied; nothing is no JSON either.
            let isShort = reply.byteCount(index + 1) <= HealthKeys.valueBytesMax
            fields.append((reply.text(index), isShort ? reply.bytes(index + 1) : []))
        }
        isWell(hash)
        return fields
    }
}
