import Hiredis
import Primitives
import TestSupport
import Testing

@testable import RedisClient

private final class Nobody: RedisRequester {
    func redisReplied(_ reply: Reply, token: UInt64) {}
    func redisFailed(_ failure: RedisFailure, token: UInt64) {}
}

/// What a stream of replies means, one word a reply: `.` for a part, `token` for an answer, `-token` for a refusal.
///
/// - Parameters:
///   - sharing: how many of the questions, from the first on, are parts of one transaction.
///   - cut: where the stream is in two, and what acknowledges a transaction is passed over.
private func meaning(
    of questions: [OpenQuestion.Question], sharing: Int = 0, _ wire: String, cut: Int? = nil
) -> String {
    var matcher = ReplyMatcher()
    for (token, question) in questions.enumerated() {
        matcher.expect(
            OpenQuestion(
                question: question, requester: Nobody(), token: UInt64(token + 1),
                sentAt: MonotonicTime(nanoseconds: 0)))
        if token + 1 == sharing { matcher.share(parts: sharing) }
    }
    var reader = ReplyReader()
    let bytes = Array(wire.replacing(" ", with: "\r\n").utf8)
    var words: [String] = []
    do throws(RedisProtocolError) {
        for piece in [bytes.prefix(cut ?? 0), bytes.dropFirst(cut ?? 0)] {
            reader.feed(piece.span)
            while true {
                if cut != nil { matcher.skipAcknowledgements(in: &reader) }
                guard try reader.next() else { break }
                switch try matcher.take(reader.reply) {
                case .partial: words.append(".")
                case .answered(let expectation): words.append("\(expectation.token)")
                case .refused(let expectation, let text): words.append("-\(expectation.token):\(text)")
                case .answeredInParts:
                    var start: Int?
                    while let (asked, commands) = matcher.takePart() {
                        start = reader.reply.showPart(elements: commands, from: start)
                        words.append(
                            "\(asked.token)" + RedisTestClient.notation(reader.reply).replacing(" ", with: ","))
                    }
                case .refusedInParts(let text):
                    while let (asked, _) = matcher.takePart() { words.append("-\(asked.token):\(text)") }
                case .unasked: words.append("?")
                case .ranAlone(let text): words.append("~\(text)")
                }
            }
        }
    } catch {
        words.append("!")
    }
    return words.joined(separator: " ")
}

@Suite("Matching replies to questions")
struct ReplyMatcherTests {
    private static let one = OpenQuestion.Question.transaction(commands: 1)
    private static let two = OpenQuestion.Question.transaction(commands: 2)
    private static let three = OpenQuestion.Question.transaction(commands: 3)

    @Test(
        "each reply answers the oldest question, and what is out of step ends the stream",
        arguments: [
            ([.command, .command], "+OK :1 ", "1 2"),
            ([.command], "+OK :1 ", "1 ?"),
            ([.command, .command], "-ERR :1 ", "-1:ERR 2"),
            ([two, .command], "+OK +QUEUED +QUEUED *2 :1 :2 :9 ", ". . . 1 2"),
            ([two, two], "+OK +QUEUED +QUEUED *2 :1 :2 +OK +QUEUED +QUEUED *2 :1 :2 ", ". . . 1 . . . 2"),
            // An error inside the array is the business of whoever asked.
            ([two], "+OK +QUEUED +QUEUED *2 -WRONGTYPE :2 ", ". . . 1"),
            // Not queued: EXEC says so, and the reason is what was said first.
            ([two, .command], "+OK -OOM +QUEUED -EXECABORT :9 ", ". . . -1:OOM 2"),
            ([two, .command], "+OK -OOM -LOADING -EXECABORT :9 ", ". . . -1:OOM 2"),
            // MULTI itself refused: all that follows must be refused too.
            ([two, .command], "-NOAUTH -NOAUTH -NOAUTH -ERR :9 ", ". . . -1:NOAUTH 2"),
            // Where they are not, each has run by itself.
            ([two], "-NOPERM :1 ", ". ~NOPERM"), ([two], "-NOPERM -OOM +OK ", ". . ~NOPERM"),
            ([two], "+OK -OOM :1 ", ". . !"),
            ([two], "+QUEUED ", "!"), ([two], ":1 ", "!"), ([two], "+OK +OK ", ". !"), ([two], "+OK :1 ", ". !"),
            ([two], "+OK +QUEUED *0 ", ". . !"), ([two], "+OK +QUEUED +QUEUED *1 :1 ", ". . . !"),
            ([two], "+OK +QUEUED +QUEUED *3 :1 :2 :3 ", ". . . !"), ([two], "+OK +QUEUED +QUEUED *-1 ", ". . . !"),
            ([two], "+OK +QUEUED +QUEUED +OK ", ". . . !"), ([two], "+OK -OOM +QUEUED *2 :1 :2 ", ". . . !"),
            ([.subscription, .subscription], "*3 +subscribe +a :1 *3 +subscribe +b :2 ", "1 2"),
            ([.subscription, .subscription], "*3 +subscribe +a :1 *3 +message +a +x *3 +subscribe +b :2 ", "1 ? 2"),
            ([.subscription], "*3 +unsubscribe +a :1 ", "!".replacing("!", with: "!")), ([.subscription], ":1 ", "!"),
            ([.subscription], "-NOPERM ", "-1:NOPERM"),
            ([.ping, .ping], "*2 +pong $0  *2 +pong $0  ", "1 2"),
            ([.ping, .ping], "-LOADING *2 +pong $0  ", "-1:LOADING 2"), ([.ping], "+PONG ", "!"),
        ] as [([OpenQuestion.Question], String, String)])
    func table(questions: [OpenQuestion.Question], wire: String, expected: String) {
        #expect(meaning(of: questions, wire) == expected)
        // The same, whether acknowledgements are read or passed over, and however they arrive.
        let answers = expected.split(separator: " ").filter { $0 != "." }.joined(separator: " ")
        for cut in 0...wire.replacing(" ", with: "\r\n").utf8.count {
            let words = meaning(of: questions, wire, cut: cut).split(separator: " ").filter { $0 != "." }
            #expect(words.joined(separator: " ") == answers, "cut at \(cut)")
        }
    }

    @Test(
        "who shares a transaction is answered with what all begin with and with their own, and refused with all",
        arguments: [
            (
                [two, two, .command], "+OK +QUEUED +QUEUED +QUEUED +QUEUED *4 :7 :1 :2 :8 :9 ",
                ". . . . . 1[7,1,8] 2[7,2,8] 3"
            ),
            (
                [three, one, two],
                "+OK +QUEUED +QUEUED +QUEUED +QUEUED +QUEUED *5 *2 $1 a $1 b *1 *1 :1 *0 +x *2 :3 :4 ",
                ". . . . . . 1[['a','b'],[[1]],[],[3,4]] 2[['a','b'],[3,4]] 3[['a','b'],+x,[3,4]]"
            ),
            // One command's error is the business of one.
            (
                [two, two], "+OK +QUEUED +QUEUED +QUEUED +QUEUED *4 :7 -WRONGTYPE :2 :8 ",
                ". . . . . 1[7,-WRONGTYPE,8] 2[7,2,8]"
            ),
            // What all share is the business of all.
            (
                [two, two], "+OK +QUEUED +QUEUED +QUEUED +QUEUED *4 -ERR :1 :2 :8 ",
                ". . . . . 1[-ERR,1,8] 2[-ERR,2,8]"
            ),
            (
                [two, two], "+OK +QUEUED +QUEUED +QUEUED +QUEUED *4 :7 :1 :2 *-1 ",
                ". . . . . 1[7,1,nil] 2[7,2,nil]"
            ),
            (
                [two, two, .command], "+OK +QUEUED +QUEUED -OOM +QUEUED -EXECABORT :9 ",
                ". . . . . -1:OOM -2:OOM 3"
            ),
            ([two, two], "-NOAUTH -NOAUTH -NOAUTH -NOAUTH -NOAUTH -ERR ", ". . . . . -1:NOAUTH -2:NOAUTH"),
            ([two, two], "+OK +QUEUED +QUEUED +QUEUED +QUEUED *3 :7 :1 :2 ", ". . . . . !"),
            ([two, two], "+OK +QUEUED +QUEUED +QUEUED *4 :7 :1 :2 :8 ", ". . . . !"),
            ([two, two], "-NOPERM :1 ", ". ~NOPERM"),
        ] as [([OpenQuestion.Question], String, String)])
    func shared(questions: [OpenQuestion.Question], wire: String, expected: String) {
        let parts = questions.count { if case .transaction = $0 { true } else { false } }
        #expect(meaning(of: questions, sharing: parts, wire) == expected)
        let answers = expected.split(separator: " ").filter { $0 != "." }.joined(separator: " ")
        for cut in 0...wire.replacing(" ", with: "\r\n").utf8.count {
            let words = meaning(of: questions, sharing: parts, wire, cut: cut).split(separator: " ")
            #expect(words.filter { $0 != "." }.joined(separator: " ") == answers, "cut at \(cut)")
        }
    }

    @Test("what acknowledges a transaction is passed over where it is all there, and else read")
    func acknowledged() {
        let stream = "+OK +QUEUED +QUEUED *2 :1 :2 "
        let length = 5 + 9 * 2
        #expect(meaning(of: [Self.two], stream, cut: length) == "1")
        let whole = stream.replacing(" ", with: "\r\n").utf8.count
        #expect(meaning(of: [Self.two, Self.two], stream + stream, cut: whole) == "1 2")
        // Of what comes in two pieces, only what the cut goes through is read.
        #expect(meaning(of: [Self.two], stream, cut: length - 1) == ". 1")
        #expect(meaning(of: [Self.two], stream, cut: 3) == ". 1")
        #expect(meaning(of: [Self.two], stream, cut: 5 + 9) == "1")
        let long = "+OK " + String(repeating: "+QUEUED ", count: 200) + "*200 " + String(repeating: ":1 ", count: 200)
        #expect(meaning(of: [.transaction(commands: 200)], long, cut: 5 + 9 * 100) == "1")
        #expect(meaning(of: [.transaction(commands: 200)], long, cut: 5 + 9 * 100 + 4) == ". 1")
        #expect(meaning(of: [Self.two, .command], "+OK +QUEUED +QUEUEX *2 :1 :2 :9 ", cut: 0) == "!")
    }

    @Test(
        "an answer that is too large is told from one that is none, by how it begins",
        arguments: [
            (.command, "*2000000000 ", true), (.command, "*2 $1 f $99999999999 ", true),
            (.command, "$99999999999 ", false), (two, "+OK +QUEUED +QUEUED *2 :1 *2000000000 ", true),
            (two, "+OK +QUEUED +QUEUED *2 *2 $1 f $99999999999 ", true),
            (two, "+OK +QUEUED +QUEUED *2000000000 ", false),
            (two, "+OK +QUEUED +QUEUED $99999999999 ", false), (two, "+OK $99999999999 ", false),
            (two, "+OK -OOM +QUEUED *2 $99999999999 ", false), (.subscription, "*2000000000 ", false),
        ] as [(OpenQuestion.Question, String, Bool)])
    func tooLarge(question: OpenQuestion.Question, wire: String, mayAnswer: Bool) throws {
        var matcher = ReplyMatcher()
        matcher.expect(
            OpenQuestion(question: question, requester: nil, token: 0, sentAt: MonotonicTime(nanoseconds: 0)))
        var reader = ReplyReader()
        let bytes = Array(wire.replacing(" ", with: "\r\n").utf8)
        reader.feed(bytes.span)
        do throws(RedisProtocolError) {
            while try reader.next() { _ = try matcher.take(reader.reply) }
            Issue.record("it was read")
        } catch {
            let isAnswer = matcher.mayAnswer(reader.reply, error)
            #expect(error.isOfSize)
            #expect(isAnswer == mayAnswer)
        }
    }

    @Test(
        "a right that is missing is named by the rule that grants it, whatever words the server has for it",
        arguments: [
            ("NOPERM No permissions to access a channel", "ACL SETUSER me '&sluice:*' grants it", true),
            (
                "NOPERM this user has no permissions to access one of the channels used as arguments",
                "ACL SETUSER me '&sluice:*' grants it", true
            ),
            (
                "NOPERM User me has no permissions to run the 'subscribe' command",
                "ACL SETUSER me +subscribe grants it",
                true
            ),
            (
                "NOPERM this user has no permissions to run the 'publish' command or its subcommand",
                "ACL SETUSER me +publish grants it", true
            ),
            ("NOPERM User me has no permissions to run the 'zadd' command", "ACL SETUSER me +zadd grants it", false),
            ("NOPERM No permissions to access a key", "ACL SETUSER me '~rate_limit:*' '~sluice:*'", false),
            ("NOPERM of a kind that nobody knows", "grant the Redis user", false),
            ("OOM command not allowed", "raise maxmemory", false),
        ])
    func missingRights(text: String, remedy: String, isOfNews: Bool) {
        let failure = RedisFailure.refused(text)
        #expect(failure.remedy(user: "me").hasPrefix(remedy))
        #expect(failure.isOfNews == isOfNews)
    }

    @Test("a cause is named once a minute")
    func toldCauses() {
        var told = ToldCauses()
        let start = MonotonicTime(nanoseconds: 5)
        func mayTell(_ cause: RedisCause, _ seconds: Int64) -> Bool {
            told.mayTell(cause, at: start + .seconds(seconds))
        }
        let answers = [
            mayTell(.wrongType, 0), mayTell(.other, 0), mayTell(.wrongType, 59), mayTell(.wrongType, 60),
            mayTell(.wrongType, 61),
        ]
        #expect(answers == [true, true, false, true, false])
        let isToldOnce = told.mayTell(.wrongType, again: .max, at: start + .seconds(1_000_000))
        #expect(!isToldOnce)
    }

    @Test("thousands of questions are answered in order, and what is left is given up in order")
    func many() {
        var matcher = ReplyMatcher()
        for token in 0..<5_000 as Range<UInt64> {
            matcher.expect(
                OpenQuestion(question: .command, requester: nil, token: token, sentAt: MonotonicTime(nanoseconds: 0)))
        }
        var reader = ReplyReader()
        let bytes = Array(String(repeating: "+OK\r\n", count: 3_000).utf8)
        reader.feed(bytes.span)
        var next: UInt64 = 0
        while (try? reader.next()) == true {
            guard case .answered(let expectation)? = try? matcher.take(reader.reply) else { break }
            #expect(expectation.token == next)
            next += 1
        }
        #expect(next == 3_000)
        #expect(matcher.count == 2_000)
        #expect(matcher.removeAll().map(\.token) == Array(3_000..<5_000))
        #expect(matcher.count == 0)
    }

    @Test("errors are told apart by their first word")
    func codes() {
        #expect(RedisCause(errorText: "READONLY You can't write against a read only replica.") == .readOnly)
        #expect(RedisCause(errorText: "LOADING Redis is loading the dataset in memory") == .loading)
        #expect(RedisCause(errorText: "OOM command not allowed") == .outOfMemory)
        #expect(RedisCause(errorText: "WRONGPASS invalid") == .login)
        #expect(RedisCause(errorText: "MISCONF x") == .unavailable)
        #expect(RedisCause(errorText: "READONLYX") == .other)
        #expect(RedisCause(errorText: "") == .other)
    }

    @Test("pauses grow, stay under half a second, and begin anew")
    func backoff() {
        var backoff = Backoff(seed: 3)
        var pauses: [TimeSpan] = []
        for _ in 0..<200 { pauses.append(backoff.next()) }
        #expect(pauses[0] <= .milliseconds(25))
        #expect(pauses.allSatisfy { $0 >= .milliseconds(20) && $0 <= .milliseconds(500) })
        #expect(pauses.suffix(100).allSatisfy { $0 >= .milliseconds(400) })
        #expect(Set(pauses.suffix(100)).count > 50)
        backoff.reset()
        #expect(backoff.next() <= .milliseconds(25))
    }
}
