mod ungated;
