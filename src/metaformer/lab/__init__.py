"""Looking at what was learnt: pictures, reports, studies, speed."""
