// One MULTI for several who ask.

import Hiredis
import LinuxIO
import Primitives
import RedisClient
import TestSupport
import Testing

extension Client {
    fileprivate func part(_ token: UInt64, _ commands: [String]...) {
        connection.part(commands: commands.count + 1, self, token: token) { writer in
            for command in commands {
                for argument in command { writer.add(argument) }
                writer.end()
            }
        }
    }
}

/// What every part's answer begins and ends with is the server's time, which no test can know.
private func own(_ answer: String) -> String {
    answer.replacing(#/\['\d{10}' '\d{1,6}'\]/#, with: "T")
}

@Suite("Transactions that several share", .timeLimit(.minutes(1)))
struct SharedTransactionTests {
    private static func transactions(_ redis: RedisTestClient) throws -> String {
        let statistics = try redis("INFO", "commandstats")
        return ["multi", "time", "exec"].map { command in
            let calls = statistics.split(separator: "cmdstat_\(command):calls=").dropFirst().first
            return "\(command) \(calls?.prefix { $0.isNumber } ?? "0")"
        }.joined(separator: ", ")
    }

    @Test("each is answered as by one of their own between two TIMEs, and an error is of one alone")
    func shared() throws {
        let server = try RedisServer()
        let client = try Client(RedisEndpoint(.unix(path: server.socketPath)))
        #expect(client.run(until: "ready"))
        let redis = try server.client()
        try redis("SET", "s", "1")
        try redis("CONFIG", "RESETSTAT")
        client.part(1, ["INCR", "n"], ["ZRANGE", "z", "0", "-1"])
        client.part(2, ["ZCARD", "s"])
        client.part(3, ["ZADD", "z", "1", "a"], ["ZRANGE", "z", "0", "-1", "WITHSCORES"], ["INCR", "n"])
        client.connection.endShared()
        client.send(4, "PING")
        #expect(client.connection.outstanding == 4)
        #expect(client.run(until: "4 "))
        #expect(
            client.log.dropFirst().map(own)
                == [
                    "1 [T 1 [] T]",
                    "2 [T -WRONGTYPE Operation against a key holding the wrong kind of value T]",
                    "3 [T 1 ['a' '1'] 2 T]", "4 +PONG",
                ])
        #expect(try Self.transactions(redis) == "multi 1, time 2, exec 1")
        #expect(client.connection.outstanding == 0)
    }

    @Test("a part alone is a transaction of the usual kind")
    func alone() throws {
        let server = try RedisServer()
        let client = try Client(RedisEndpoint(.unix(path: server.socketPath)))
        #expect(client.run(until: "ready"))
        client.part(1, ["INCR", "n"])
        client.connection.endShared()
        client.connection.endShared()
        #expect(client.run(until: "1 "))
        #expect(client.log.last.map(own) == "1 [T 1]")
        #expect(client.connection.outstanding == 0)
    }

    @Test("what the server does not take from one is done for none, and each is told why")
    func refused() throws {
        let server = try RedisServer()
        let client = try Client(RedisEndpoint(.unix(path: server.socketPath)))
        #expect(client.run(until: "ready"))
        client.part(1, ["INCR", "n"])
        client.part(2, ["INCR"])
        client.connection.endShared()
        client.send(3, "EXISTS", "n")
        #expect(client.run(until: "3 "))
        #expect(
            client.log.dropFirst()
                == [
                    "1 failed refused: ERR wrong number of arguments for 'incr' command",
                    "2 failed refused: ERR wrong number of arguments for 'incr' command", "3 0",
                ])
    }

    @Test("one that has grown large ends, and what follows shares another")
    func large() throws {
        let server = try RedisServer()
        let client = try Client(RedisEndpoint(.unix(path: server.socketPath)))
        #expect(client.run(until: "ready"))
        let redis = try server.client()
        try redis("CONFIG", "RESETSTAT")
        let text = String(repeating: "x", count: 100_000)
        for token in 0..<8 as Range<UInt64> { client.part(token, ["SET", "k\(token)", text]) }
        client.connection.endShared()
        #expect(client.run(until: "7 "))
        #expect(client.log.dropFirst().map(own) == (0..<8).map { "\($0) [T +OK T]" })
        // The third makes it larger than 256 KB.
        #expect(try Self.transactions(redis) == "multi 3, time 6, exec 3")
    }

    @Test("one of many parts ends, and what follows shares another")
    func many() throws {
        let server = try RedisServer()
        let client = try Client(RedisEndpoint(.unix(path: server.socketPath)))
        #expect(client.run(until: "ready"))
        let redis = try server.client()
        try redis("CONFIG", "RESETSTAT")
        for token in 0..<129 as Range<UInt64> { client.part(token, ["INCR", "n"]) }
        client.connection.endShared()
        #expect(client.run(until: "128 "))
        let expected = (0..<128).map { "\($0) [T \($0 + 1) T]" } + ["128 [T 129]"]
        #expect(client.log.dropFirst().map(own) == expected)
        #expect(try Self.transactions(redis) == "multi 3, time 5, exec 3")
    }

    @Test("who distrusts one answer ends the connection, and all whose answers were to follow are told")
    func distrusted() throws {
        final class Sceptic: RedisRequester {
            weak var client: Client?
            func redisReplied(_ reply: Reply, token: UInt64) {
                client?.log.append("\(token) distrusts")
                client?.connection.distrust("a strange answer")
            }
            func redisFailed(_ failure: RedisFailure, token: UInt64) {}
        }
        let server = try RedisServer()
        let client = try Client(RedisEndpoint(.unix(path: server.socketPath)))
        #expect(client.run(until: "ready"))
        let sceptic = Sceptic()
        sceptic.client = client
        client.part(1, ["INCR", "n"])
        client.connection.part(commands: 2, sceptic, token: 2) { writer in
            writer.add("INCR")
            writer.add("n")
            writer.end()
        }
        client.part(3, ["INCR", "n"])
        client.connection.endShared()
        #expect(client.run(until: "lost "))
        #expect(client.log.dropFirst().prefix(3).map(own).first == "1 [T 1 T]")
        #expect(client.log[2] == "2 distrusts")
        #expect(client.log[3].hasPrefix("3 failed "))
        client.log = []
        #expect(client.run(until: "ready"))
        client.part(4, ["GET", "n"])
        client.connection.endShared()
        #expect(client.run(until: "4 "))
        #expect(client.log.last.map(own) == "4 [T '3']")
    }

    @Test("without a connection each is told at once, and nothing is left to be sent")
    func notConnected() throws {
        let client = try Client(RedisEndpoint(.unix(path: "/nonexistent/redis.sock")))
        client.part(1, ["INCR", "n"])
        client.part(2, ["INCR", "n"])
        client.connection.endShared()
        #expect(client.log.filter { $0.hasPrefix("1 failed") || $0.hasPrefix("2 failed") }.count == 2)
        #expect(client.connection.outstanding == 0)
    }
}
