// Tests of Hiredis
