"""What settings and network interfaces do to communication, in the words that findings and the doctor share."""
