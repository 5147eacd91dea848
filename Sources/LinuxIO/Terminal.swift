import CLinux
import Glibc

/// The terminal that standard output is, if it is one.
public enum Terminal {
    public static var isOutput: Bool { isatty(1) == 1 }

    /// `nil` where it does not say.
    public static var size: (rows: Int, columns: Int)? {
        var (rows, columns): (UInt16, UInt16) = (0, 0)
        guard unsafe sluice_terminal_size(1, &rows, &columns) == 0, rows > 0, columns > 0 else { return nil }
        return (Int(rows), Int(columns))
    }
}
